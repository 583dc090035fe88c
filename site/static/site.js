// What moves on a page: sliders over pictures drawn beforehand, questions that wait for an answer, and how far a reader
// has come, which is kept in the browser and nowhere else. Without this script the page says the same, and stands still.

const one = (node, selector) => node.querySelector(selector);
const all = (node, selector) => [...node.querySelectorAll(selector)];

// Sliders

const whenNear = (node, act) => new IntersectionObserver((entries, observer) => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    act();
}, {rootMargin: '800px'}).observe(node);

const explore = explorer => {
    const {values, frames} = JSON.parse(one(explorer, 'script').textContent);
    const inputs = all(explorer, 'input'), outputs = all(explorer, 'output');
    const picture = one(explorer, 'img'), caption = one(explorer, 'figcaption'), spoken = one(explorer, '.spoken');
    const place = () => inputs.reduce((sum, input, i) => sum * values[i].length + Number(input.value), 0);
    const fetched = new Map(); // held, so that the browser holds the pictures too
    let speaking;

    const fetchAll = () => frames.forEach(([source]) => {
        const image = new Image();
        image.src = source;
        fetched.set(source, image);
    });
    const tell = () => inputs.forEach((input, i) => {
        outputs[i].textContent = values[i][input.value];
        input.setAttribute('aria-valuetext', values[i][input.value]);
    });
    const show = () => {
        const [source, alt, words, width, height] = frames[place()];
        tell();
        Object.assign(picture, {src: source, alt, width, height});
        caption.innerHTML = words;
        clearTimeout(speaking); // whoever moves on is not held up by what was passed
        speaking = setTimeout(() => { spoken.textContent = `${alt} ${caption.textContent}`; }, 400);
    };
    inputs.forEach(input => input.addEventListener('input', show));
    one(explorer, '.sliders').hidden = false;
    if (inputs.some(input => input.value !== input.defaultValue)) show(); // the browser remembers them
    else tell();
    picture.loading = 'eager'; // lazy ones would wait a moment at each change
    addEventListener('load', () => whenNear(explorer, fetchAll)); // the page itself comes first
};

// Self-tests

const page = `${document.documentElement.lang}/${location.pathname.split('/').pop().replace('.html', '')}`;
const key = where => `rvq-tutorial/${where}`;
const kept = where => { // there may be no storage, or another's content in it
    try { return JSON.parse(localStorage.getItem(key(where))) || {}; } catch { return {}; }
};
const keep = (where, content) => {
    try { localStorage.setItem(key(where), JSON.stringify(content)); } catch { /* then it is not kept */ }
};

const ask = (test, number) => {
    const {asks, presses} = test.dataset, answers = kept(page).answers || {};
    const label = document.createElement('label'), hint = document.createElement('p');
    const field = document.createElement('textarea');
    label.className = 'own-answer';
    hint.setAttribute('role', 'status');
    field.rows = 2;
    field.value = answers[number] || '';
    label.append(asks, field);
    test.before(label, hint);
    field.addEventListener('change', () => {
        const content = kept(page);
        content.answers = {...content.answers, [number]: field.value};
        keep(page, content);
    });
    one(test, 'summary').addEventListener('click', event => {
        if (field.value.trim() || test.open || hint.textContent) {
            hint.textContent = '';
            return;
        }
        event.preventDefault();
        hint.textContent = presses;
        field.focus();
    });
};

// The course's map

const count = list => all(list, '[data-page]').forEach(entry => {
    const answers = kept(`${document.documentElement.lang}/${entry.dataset.page}`).answers || {};
    const done = Object.values(answers).filter(answer => answer.trim()).length;
    if (!done) return;
    const words = document.createElement('p');
    words.className = 'done';
    words.textContent = list.dataset.done.replace('{done}', done).replace('{all}', entry.dataset.tests);
    entry.append(words);
});

// Sphinx's search takes a Chinese query for one word. Its index has words, so the query is cut into the longest of these.
const cut = text => {
    const {terms, titleterms} = Search._index, found = [];
    for (let start = 0; start < text.length;) {
        let end = text.length;
        while (end > start + 1 && !(text.slice(start, end) in terms) && !(text.slice(start, end) in titleterms)) end--;
        if (end > start + 1) found.push(text.slice(start, end));
        start = end;
    }
    return found;
};
if (document.documentElement.lang.startsWith('zh')) {
    const words = window.splitQuery;
    window.splitQuery = query => words(query).flatMap(word => /\p{Script=Han}/u.test(word) ? cut(word) : word);
}

all(document, '.explorer').forEach(explore);
all(document, 'details.self-test').forEach(ask);
all(document, '.course').forEach(count);
// A printed page has nothing to unfold.
addEventListener('beforeprint', () => all(document, 'details').forEach(fold => { fold.open = true; }));
