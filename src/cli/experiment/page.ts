import { type Html, html } from '../../html.js';
import { abouts, cases } from './lessons.js';
import { methods, type Servers } from './servers.js';
import type { Case } from './types.js';

const caseNames = Object.keys(cases) as Case[];

/**
 * Where ways of opening a socket are tried, one by one or all together, and where one is watched. Its script switches the
 * buttons on: without it they do nothing.
 */
export function experimentPage(servers: Servers, origin: string): Html {
  return html`<p><a class="button" href="/">Back</a></p>
    <h1>Whose WebSocket is it?</h1>
    <p>There are seven ways for a socket to say whose it is to be (<code>frame</code> is a cookie, too). Each has a server
      of its own here. Press a button: a real connection is made, and you see what went over the wire, what the server
      decided, and why.</p>
    <noscript><p><strong>This page works by JavaScript only.</strong></p></noscript>
    ${origins(servers, origin)}
    ${trial()}
    <section id="result" class="panel" aria-labelledby="result-name" hidden></section>
    ${matrix()}
    ${life()}`;
}

function origins({ origins, foreign }: Servers, origin: string): Html {
  const rows = methods.map(
    (method) => html`<tr><th scope="row">${method}</th><td><code>${origins[method]}</code></td></tr>`,
  );
  return html`<details><summary>Where is all this? Origins, sites and ports</summary>
    <p>An <strong>origin</strong> is scheme, host and port together. This page is of <code>${origin}</code>, and each server
      below is another origin. A page may open a WebSocket to any of them: browsers do not stop that, and only tell the
      server where the page is from, in the header <code>Origin</code>.</p>
    <p><strong>Cookies</strong> know no ports. What this page has for <code>localhost</code> goes to every server here. On
      the web they would be at different hosts, and the cookie would stay at home. Nor does <code>SameSite</code> help: a
      <strong>site</strong> is wider than an origin. All ports of <code>localhost</code> are one, and all of
      <code>cam.ac.uk</code> is.</p>
    <table>${rows}<tr><th scope="row">a foreign page</th><td><code>${foreign}</code></td></tr></table>
    ${
      origin.startsWith('https:') &&
      html`<p>If nothing arrives at a server, your browser wants to be told for each port that it may trust the
        certificate: open that address once.</p>`
    }</details>`;
}

function trial(): Html {
  const choices = caseNames.map(
    (name) => html`<label><input type="radio" name="which" value="${name}"${name === 'good' && html` checked`}>
      <span><strong>${cases[name].name}</strong><br><span class="quiet">${cases[name].what}</span></span></label>`,
  );
  const buttons = methods.map(
    (method) => html`<li>
      <button type="button" disabled class="main" value="${method}" aria-describedby="about-${method}">${method}</button>
      <p id="about-${method}">${abouts[method].who} <span class="quiet">Leaks ${abouts[method].leaks}</span></p></li>`,
  );
  return html`<h2 id="try">Try one</h2>
    <form id="trial">
      <fieldset class="cases"><legend>1. What is sent?</legend>${choices}</fieldset>
      <fieldset><legend>2. How? Each button opens a socket.</legend><ul class="methods">${buttons}</ul></fieldset>
    </form>
    <p class="quiet"><code>cookie</code> and <code>frame</code> send a cookie. <code>bearer</code> sends an API token, made
      for a program. The others send a <strong>ticket</strong>: a page gets it for its session, and it is good for one
      socket, within 30 seconds.</p>
    <p id="status" role="status" class="quiet"></p>`;
}

function matrix(): Html {
  const heads = caseNames.map((name) => html`<th scope="col">${cases[name].short}</th>`);
  const rows = methods.map((method) => {
    const cells = caseNames.map((name) => cell(method, name));
    return html`<tr><th scope="row">${method}</th>${cells}</tr>`;
  });
  return html`<h2 id="matrix-name">Try all</h2>
    <p>Every way with everything that can be the matter with it: what the server answers. Press a cell to see it.</p>
    <p class="row"><button type="button" disabled id="all">Try all ${methods.length * caseNames.length}</button>
      <span id="tried" role="status"></span></p>
    <table id="matrix" aria-labelledby="matrix-name">
      <thead><tr><td></td>${heads}</tr></thead><tbody>${rows}</tbody></table>`;
}

function cell(method: string, which: Case): Html {
  return html`<td><button type="button" disabled data-method="${method}" data-which="${which}"
    aria-label="${method}, ${cases[which].short}: not tried yet"><span class="case" aria-hidden="true">${cases[which].short}
    </span><span class="verdict">try</span></button></td>`;
}

function life(): Html {
  const buttons = [
    ['open', 'Open'],
    ['renew', 'Renew'],
    ['end', 'End its session'],
    ['drop', 'Drop the connection'],
    ['close', 'Close'],
    ['reopen', 'Reconnect'],
  ].map(([name, label]) => html`<button type="button" disabled value="${name}">${label}</button>`);
  return html`<h2 id="life-name">The life of a socket</h2>
    <p>A socket lives as long as its session. This one has a session that was begun for it, so that you stay logged in
      whatever you do to it. The page keeps it open with <code>connect()</code> of <code>ucam-webauth/client</code>, which
      gets a new ticket and opens it again where that helps. Here there is a new session for each ticket; in an application
      the person would have to log in first, and <code>connect()</code> says so.</p>
    <div class="row" id="deeds" role="group" aria-labelledby="life-name">${buttons}</div>
    <p>It is <strong id="now">not opened yet</strong>.</p>
    <ol id="life" aria-live="polite" aria-labelledby="life-name"></ol>`;
}

export const style = `
main { max-width: 50rem; }
fieldset { border: 0; margin: 0 0 1.25rem; padding: 0; min-width: 0; }
legend { font-weight: 600; padding: 0; margin-bottom: .5rem; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .5rem; }
.cases legend { grid-column: 1 / -1; }
.cases label { display: flex; gap: .6rem; align-items: flex-start; border: 1px solid var(--line); border-radius: .4rem;
  padding: .5rem .75rem; cursor: pointer; line-height: 1.35; }
.cases label:has(:checked) { border-color: var(--accent); background: var(--panel); box-shadow: inset 0 0 0 1px var(--accent); }
.cases label:has(:focus-visible) { outline: 3px solid var(--accent); outline-offset: 2px; }
.cases input { flex: none; width: 1.1rem; height: 1.1rem; margin: .15rem 0 0; accent-color: var(--accent); outline: 0; }
.methods { list-style: none; padding: 0; margin: 0; display: grid; gap: .5rem; }
.methods li { display: grid; grid-template-columns: 9.5rem 1fr; gap: .25rem 1rem; align-items: center; }
.methods p { margin: 0; line-height: 1.35; }
#result { scroll-margin-top: 1rem; margin-top: 1rem; }
#result h3 { scroll-margin-top: 1.5rem; margin: 0 0 .25rem; font-size: 1.15rem; }
#result h4 { margin: 1rem 0 .35rem; font-size: 1rem; }
#result p { margin: 0 0 .5rem; }
.verdict { font-weight: 600; }
.wire { list-style: none; margin: 0 0 .75rem; padding: .6rem .75rem; border: 1px solid var(--line); border-radius: .4rem;
  background: var(--paper); line-height: 1.5; }
.wire .answer { color: var(--quiet); }
.heard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.wire li { padding-left: 1.6rem; text-indent: -1.6rem; }
#matrix { table-layout: fixed; line-height: 1.2; }
#matrix th, #matrix td { padding: .15rem; border: 0; vertical-align: middle; }
#matrix thead th { text-align: center; font-size: .85rem; }
#matrix thead td, #matrix tbody th { width: 8.75rem; }
#matrix button { width: 100%; padding: .6rem .1rem; font-size: .9rem; min-height: 2.75rem; }
#matrix [aria-current] { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
#matrix .case { display: none; }
#deeds { margin-bottom: 1rem; }
#life time { font-variant-numeric: tabular-nums; color: var(--quiet); margin-right: .35rem; }
@media (max-width: 40rem) {
  .cases { grid-template-columns: 1fr 1fr; }
  .cases .quiet { display: none; }
  .cases br { display: none; }
  .methods li { grid-template-columns: 1fr; margin-bottom: .5rem; }
  #matrix thead { display: none; }
  #matrix, #matrix tbody { display: block; }
  #matrix tr { display: grid; grid-template-columns: repeat(4, 1fr); margin-bottom: .5rem; }
  #matrix tbody th { grid-column: 1 / -1; width: auto; }
  #matrix .case { display: block; font-size: .8rem; }
}
`;
