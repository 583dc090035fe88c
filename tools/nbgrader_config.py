"""nbgrader's settings for this course: `make assignments` puts them beside the assignments, where nbgrader looks."""

import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821, nbgrader defines it

c.CourseDirectory.course_id = "rvq_tutorial"
c.ClearSolutions.code_stub = "...  # your code here"  # as in the notebooks: the checks then say "not solved yet"
c.Execute.timeout = 600  # seconds for a cell: some train a network, on a machine that others use too

# One thread a kernel: kernels that share a machine wait for each other's threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nbgrader calls alembic, which lies beside it, whether or not the environment is activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
