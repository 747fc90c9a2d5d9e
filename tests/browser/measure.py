"""What can be measured in a page: the contrast of charts and texts, and how long a slider takes to redraw a chart."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page

# WCAG 2.1: 1.4.3 asks 4.5:1 of text (3:1 of large text), 1.4.11 asks 3:1 of graphics that are needed to understand.
_FAINT = """(root) => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext('2d', {willReadFrequently: true});
    const known = new Map();
    const rgba = colour => {  // any CSS colour, as the browser itself reads it
        if (!known.has(colour)) {
            pen.clearRect(0, 0, 1, 1);
            pen.fillStyle = colour;
            pen.fillRect(0, 0, 1, 1);
            const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
            known.set(colour, [r, g, b, a / 255]);
        }
        return known.get(colour);
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => a * v + (1 - a) * below[i]);
    const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const contrast = (a, b) => {
        const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
    };
    const pageBehind = element => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) {
            const layer = rgba(getComputedStyle(e).backgroundColor);
            layers.push(layer);
            if (layer[3] === 1) break;
        }
        return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const opacityOf = (element, top) => {
        let product = 1;
        for (let e = element; e && e !== top.parentElement; e = e.parentElement) product *= +getComputedStyle(e).opacity;
        return product;
    };
    const paint = (element, kind, top) => {
        const style = getComputedStyle(element);
        if (style[kind] === 'none' || style.visibility === 'hidden') return null;
        const [r, g, b, a] = rgba(style[kind]);
        return [r, g, b, a * style[kind + 'Opacity'] * opacityOf(element, top)];
    };
    const shapesOf = svg => [...svg.querySelectorAll('path, rect, circle')].filter(e => !e.closest('defs, clipPath'));
    const behind = (element, svg, shapes) => {  // the page, then each shape under the element's middle, in painting order
        const box = element.getBoundingClientRect();
        const middle = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2);
        let below = pageBehind(svg);
        for (const shape of shapes) {
            if (!(shape.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING)) break;
            const matrix = shape.getScreenCTM();
            const filled = matrix && paint(shape, 'fill', svg);
            if (!filled || !filled[3]) continue;
            if (shape.isPointInFill(middle.matrixTransform(matrix.inverse()))) below = over(filled, below);
        }
        return below;
    };
    const found = [];
    const check = (what, words, colour, below, needs) => {
        const ratio = contrast(over(colour, below), below);
        if (ratio >= needs) return;
        found.push({what, words: words.trim().slice(0, 40), colour, ratio: Math.round(100 * ratio) / 100, needs});
    };
    const needsOf = style => {
        const size = parseFloat(style.fontSize);
        return size >= 24 || (size >= 18.66 && +style.fontWeight >= 700) ? 3 : 4.5;
    };
    let seen = 0;
    for (const svg of root.querySelectorAll('svg.marks')) {
        const shapes = shapesOf(svg);
        for (const text of svg.querySelectorAll('text')) {
            const colour = text.textContent.trim() && paint(text, 'fill', svg);
            if (!colour || !colour[3]) continue;
            seen += 1;
            check('text', text.textContent, colour, behind(text, svg, shapes), needsOf(getComputedStyle(text)));
        }
        // Not the grid, which is there to be faint, nor what the chart draws see-through on purpose, such as bands.
        const lines = svg.querySelectorAll('.role-axis-domain line, .role-axis-tick line');
        for (const line of lines) {
            const colour = paint(line, 'stroke', svg);
            if (!colour || !colour[3]) continue;
            seen += 1;
            check('axis', '', colour, pageBehind(svg), 3);
        }
        for (const mark of svg.querySelectorAll('.role-mark path, .role-legend-symbol path')) {
            const painted = ['fill', 'stroke'].map(kind => paint(mark, kind, svg)).filter(c => c && c[3] >= 0.9);
            if (!painted.length) continue;
            seen += 1;
            const clearest = painted.sort((a, b) => contrast(b, pageBehind(svg)) - contrast(a, pageBehind(svg)))[0];
            check('mark', mark.getAttribute('aria-label') || '', clearest, pageBehind(svg), 3);
        }
    }
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.closest('.jp-OutputArea-output')) continue;
        if (!element.getClientRects().length || element.closest('svg, script, style, option, [disabled]')) continue;
        const style = getComputedStyle(element);
        if (style.visibility === 'hidden') continue;
        seen += 1;
        const [r, g, b, a] = rgba(style.color);
        const colour = [r, g, b, a * opacityOf(element, root)];
        check('output', walker.currentNode.data, colour, pageBehind(element), needsOf(style));
    }
    return {seen, found};
}"""

_ARM = """(node) => {
    const drawn = () => node.querySelector('svg.marks')?.innerHTML;
    const before = drawn();
    window.redrawn = new Promise((done, failed) => {
        setTimeout(() => failed(new Error('the chart did not follow the slider within 20 s')), 20000);
        document.addEventListener('keydown', event => {
            const observer = new MutationObserver(() => {
                const now = drawn();
                if (!now || now === before) return;
                observer.disconnect();
                done(performance.now() - event.timeStamp);
            });
            observer.observe(node, {subtree: true, childList: true, attributes: true, characterData: true});
        }, {once: true, capture: true});
    });
    window.redrawn.catch(() => null);
}"""


def faint(page: Page) -> list[dict[str, Any]]:
    """What is too faint to read or see in the page's charts and outputs, by the browser's computed colours.

    Each with its ratio and the one WCAG 2.1 needs of it. Raises `AssertionError` for a page with nothing to look at.
    """
    result = page.evaluate_handle(f"({_FAINT})(document.body)").json_value()
    assert result["seen"], "nothing to look at: no chart, no output"
    found: list[dict[str, Any]] = result["found"]
    return found


def redraw_times(page: Page, dashboard: Locator, label: str, presses: int = 12) -> list[float]:
    """Milliseconds from each press of → on the slider `label` to `dashboard`'s first chart having changed in the page."""
    dashboard.locator(".widget-inline-hbox", has_text=label).first.locator(".noUi-handle").focus()
    times = []
    for _ in range(presses):
        dashboard.evaluate(_ARM)
        page.keyboard.press("ArrowRight")
        times.append(float(page.evaluate("() => window.redrawn")))
    return times
