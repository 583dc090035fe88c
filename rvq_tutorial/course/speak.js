// Makes a box of sliders usable without eyes; `this` is an image in that box. ipywidgets leave a
// slider's handle without a name and tell its index for its value: it gets the name and the value that stand beside it.
// And the words of a new picture are read out.
const set = (node, attributes) => Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
const tell = box => box.querySelectorAll('.widget-hslider').forEach(slider => {
    const [handle, label, readout] = ['.noUi-handle, .ui-slider-handle', '.widget-label', '.widget-readout']
        .map(part => slider.querySelector(part));
    if (!handle || !label || !readout) return;
    set(readout, {contenteditable: false, 'aria-hidden': true});
    if (handle.matches('.ui-slider-handle')) { // ipywidgets 7 tell nothing at all
        const percent = parseFloat(handle.style.left) || 0;
        set(handle, {role: 'slider', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': percent});
    }
    set(handle, {'aria-label': label.textContent, 'aria-valuetext': readout.textContent});
});
const attend = tries => {
    const box = this.closest('.widget-vbox');
    if (!box) { // the image may be loaded before its box stands on the page
        if (tries) setTimeout(attend, 100, tries - 1);
        return;
    }
    set(box.querySelector('.widget-html-content'), {'aria-live': 'polite'});
    new MutationObserver(() => tell(box)).observe(box, {childList: true, characterData: true, subtree: true});
    tell(box);
};
attend(100);
