# make lab        set everything up in .venv and open the course in JupyterLab
# make update     bring the course up to date, and keep what you have changed
# make test       run every test; fetches a browser for them if there is none
# make test-colab  run every notebook on an imitation of Colab, for a few minutes; make test runs one
# make test-all   the same with all that make test does with one notebook, and each cell of a solved one run again
# make site       the course as pages whose sliders move without a kernel, into build/site
# make site-open  the same, and shown on this machine alone
# make test-site  read the site in a browser, every page
# make lint       what make test looks at first: style, types, notebooks that are their sources'
# make notebooks  rebuild the notebooks from notebooks/sources
# make catalogues bring the catalogues of the other languages in step with the sources
# make measurements  measure what takes longer than a notebook may, for the notebooks to draw
# make solved     write the solved edition, for teachers, to build/solved
# make assignments  write the course as nbgrader's assignments to build/assignments
# make slides     write slides, a page a notebook, to build/slides
# make test-class  grade all assignments with nbgrader: solved, half solved and empty; an hour
# make font       cut the letters of Chinese pictures out of Debian's fonts-noto-cjk
# make pretrained  train the model that ships with the course, and measure it for its model card
# make card       measure the model that ships once more for its model card
# make bench      measure the quantizers side by side with their peers
# make busy       measure how long learners wait who share a machine, and what memory each takes
# make versions   run the package's tests and three notebooks with everything at its oldest, then at its newest
# make links      see that every address on the pages answers
PYTHON ?= python3

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n)
ALLOW_ROOT := $(shell [ "$$(id -u)" != 0 ] || echo --allow-root)
OVERRIDES := $(VENV)/share/jupyter/lab/settings/overrides.json
# What kernels find in their environment. Threads that wait for others of their kernel do so in a loop, at the cost of
# all other kernels: by these they soon give the core away (libgomp, on Linux; libomp, on macOS). `make busy` measures it.
KERNELS := GOMP_SPINCOUNT=5000 KMP_BLOCKTIME=1

.PHONY: lab update site site-open test test-all test-site test-class test-colab lint notebooks catalogues font solved assignments slides measurements pretrained card bench busy versions links browser

lab: $(VENV)/.has-lab $(OVERRIDES)
	$(KERNELS) $(BIN)/jupyter lab $(ALLOW_ROOT) --LabApp.default_url=/lab/tree/README.md

update:
	@$(PYTHON) tools/update.py

# Every notebook runs unsolved, and solved. One runs in a browser, as it is. Of another language, whose code is the same, one
# runs as a learner gets it, and in the browser.
MARKS := not whole and not weekly and not site
SOLVED := solved
OTHERS := 04_*
test: lint browser
	rm -rf build/rehearsals
	$(BIN)/python tools/build_notebooks.py --rehearsals build/rehearsals
	shopt -s nullglob; $(BIN)/python -m pytest -n 2 --dist loadfile -m '$(MARKS)' \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout 300 \
	    tests build/rehearsals/{unsolved,$(SOLVED)} build/rehearsals/[a-z][a-z]/$(OTHERS)

# Each cell of the solved notebooks twice in a row, and then all once more; each notebook in the browser; all languages.
test-all:
	$(MAKE) test MARKS='not weekly and not site' SOLVED=repeated OTHERS='*'

test-colab: browser
	$(BIN)/python -m pytest -m "" tests/course/test_colab.py

# The pictures of the sliders are those that test-all left behind; what is missing is run first.
site: $(VENV)/.has-site
	$(BIN)/python tools/build_site.py

site-open: site
	@echo "The site is at http://127.0.0.1:8000 until you press Ctrl-C."
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

test-site: site browser
	$(BIN)/python -m pytest -n 2 -m site tests/course/test_site.py

lint: $(VENV)/.has-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/build_notebooks.py --check

notebooks: $(VENV)/.has-test
	$(BIN)/python tools/build_notebooks.py
	$(BIN)/python tools/rewrite_links.py

catalogues: $(VENV)/.has-test
	$(BIN)/python tools/catalogues.py

font: $(VENV)/.has-test
	$(BIN)/python tools/font.py

solved: $(VENV)/.has-teach
	$(BIN)/python tools/build_notebooks.py --solved build/solved

assignments: $(VENV)/.has-teach
	$(BIN)/python tools/build_notebooks.py --assignments build/assignments

slides: $(VENV)/.has-teach
	$(BIN)/python tools/slides.py build/slides

test-class: $(VENV)/.has-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m weekly tests/course/test_assignments.py

measurements: $(VENV)/.has-test
	OMP_NUM_THREADS=1 $(BIN)/python tools/measure.py

pretrained: $(VENV)/.has-test
	$(BIN)/python tools/train_pretrained.py

card: $(VENV)/.has-test
	$(BIN)/python tools/model_card.py

bench: $(VENV)/.has-test
	$(BIN)/python -m benchmarks

busy: $(VENV)/.has-test
	$(BIN)/python -m benchmarks.busy

versions: $(VENV)/.has-versions
	$(BIN)/nox

links: $(VENV)/.has-versions
	$(BIN)/nox --session links

# Debian's Chromium where we may install it, Playwright's own elsewhere.
browser: $(VENV)/.has-test
	@command -v chromium >/dev/null \
	|| { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium; } >/dev/null 2>&1 \
	|| $(BIN)/playwright install chromium

$(VENV)/.has-lab: EXTRAS := lab
$(VENV)/.has-teach: EXTRAS := lab,teach
$(VENV)/.has-site: EXTRAS := site
$(VENV)/.has-test: EXTRAS := lab,teach,site,test
$(VENV)/.has-versions: EXTRAS := versions

# Of all that pip says a learner wants to see only that it goes on: the names of what it fetches.
NAMES := awk '/^Collecting/ { sub(/[^[:alnum:]_.-].*/, "", $$2); printf "%s ", $$2; fflush() } \
              /^Installing/ { print "\nUnpacking …"; fflush() }'

$(VENV)/.has-%: pyproject.toml | $(BIN)/pip
	@echo "Installing into $(VENV); the first time this takes some minutes, most of them for PyTorch."
	@set -o pipefail; PYTHONUNBUFFERED=1 $(BIN)/pip install --disable-pip-version-check -e ".[$(EXTRAS)]" | $(NAMES)
	@touch $@

$(OVERRIDES): tools/overrides.json | $(VENV)/.has-lab
	@mkdir -p $(@D) && cp $< $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "The course needs Python 3.10 or newer. If you have one: make lab PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	|| { rm -rf $(VENV); echo "$(PYTHON) has no venv. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
