/** An element of the page that is there from the beginning. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

type Child = Node | string | undefined;

/** A new element. What it holds is text, and never HTML. */
export function make(name: string, className = '', ...children: readonly Child[]): HTMLElement {
  const element = document.createElement(name);
  if (className !== '') element.className = className;
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** Calls back with the button of a group that was pressed. */
export function onPress(group: HTMLElement, pressed: (button: HTMLButtonElement) => void): void {
  group.addEventListener('click', ({ target }) => {
    const button = (target as Element).closest('button');
    if (button) pressed(button);
  });
}
