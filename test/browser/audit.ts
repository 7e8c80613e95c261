import type { Page } from 'playwright-core';

/** What is wrong with how the page is made and looks, for somebody who reads, hears or touches it. Empty if all is well. */
export async function audit(page: Page): Promise<string[]> {
  const faults: string[] = [];
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    faults.push(...(await page.evaluate<string[]>(script)).map((fault) => `${colorScheme}: ${fault}`));
  }
  return faults;
}

// Runs in the browser, so that it is written as text: the types of a browser are none of this project's.
const script = String.raw`(() => {
  const faults = [];
  const need = (held, fault) => { if (!held) faults.push(fault); };
  const all = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());

  need(document.documentElement.lang === 'en', 'no language');
  need(document.title.trim() !== '', 'no title');
  need(all('h1').length === 1, all('h1').length + ' h1');
  need(all('main').length === 1, all('main').length + ' main');
  for (const input of all('input')) need(input.labels.length > 0, 'no label: ' + input.outerHTML);
  for (const control of all('a, button')) need(control.innerText.trim() !== '', 'no name: ' + control.outerHTML);
  for (const touched of all('button, a.button, input, summary')) {
    // What is touched to choose something is its label.
    const { height } = (touched.type === 'radio' ? touched.labels[0] : touched).getBoundingClientRect();
    need(height >= 44, height + ' pixels high: ' + touched.outerHTML);
  }
  const { scrollWidth } = document.documentElement;
  need(scrollWidth <= innerWidth, scrollWidth + ' pixels wide, of ' + innerWidth);

  const channels = (color) => {
    const found = /^rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?\)$/.exec(color);
    return found ? found.slice(1).map((part) => (part === undefined ? 1 : Number(part))) : [NaN, NaN, NaN, 1];
  };
  // Relative luminance and contrast, as WCAG 2 defines them.
  const luminance = (color) => {
    const [r, g, b] = channels(color).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (channels(backgroundColor)[3] !== 0) return backgroundColor;
    }
    return 'none';
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const elements = new Set(all('input'));
  while (texts.nextNode()) {
    const { parentElement } = texts.currentNode;
    if (texts.currentNode.data.trim() && parentElement.checkVisibility()) elements.add(parentElement);
  }
  need(elements.size > 1, 'no text');
  for (const element of elements) {
    const [one, other] = [getComputedStyle(element).color, background(element)].map(luminance).sort((a, b) => a - b);
    const contrast = (other + 0.05) / (one + 0.05);
    need(contrast >= 4.5, 'contrast ' + contrast.toFixed(2) + ': ' + element.outerHTML.slice(0, 200));
  }
  return faults;
})()`;
