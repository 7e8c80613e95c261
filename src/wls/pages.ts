import type { ServerResponse } from 'node:http';
import { type Html, html, sendPage } from '../html.js';
import type { AuthRequest } from '../request.js';
import type { FailureStatus } from '../response.js';
import type { Account } from './accounts.js';

/**
 * Sends the page that offers the accounts.
 *
 * @param deviations sentences on what the request has that the protocol does not allow.
 */
export function sendChoices(
  response: ServerResponse,
  asked: AuthRequest,
  accounts: readonly Account[],
  deviations: readonly string[],
): void {
  const body = html`<h1>Development login service</h1>
<p class="panel"><strong>This is not Raven.</strong> It stands in for it while an application is being written: nobody
needs a password, so choose who you want to be.</p>
<p>${describe(asked)}</p>
${deviations.length > 0 && deviationsPanel(deviations)}
<form method="post">
<ul class="choices">${accounts.map(showAccount)}</ul>
<button name="status" value="410">Cancel</button>
<details><summary>Answer with another failure</summary>
<p class="quiet">What the application would hear from a login service that refuses.</p>
<ul class="choices">${Object.entries(refusals).map(showRefusal)}</ul></details>
</form>`;
  sendPage(response, 'Development login service', body, { formAction: [formTarget(asked.url)] });
}

/** What went wrong, where the application is not to hear of it or cannot. */
export function sendFailure(response: ServerResponse, status: FailureStatus, message: string): void {
  const body = html`<h1>Not logged in</h1>
<p class="bad">What happened: ${message}.</p>
<p class="quiet">Status ${status} of the development login service. Nothing was sent to the application: it asked for
that, or it gave no address to answer to.</p>`;
  sendPage(response, 'Not logged in', body, { status: status === 520 || status === 530 ? 400 : 403 });
}

/** The page at the root. */
export function sendIndex(response: ServerResponse): void {
  const body = html`<h1>Development login service</h1>
<p>Stands in for Raven while an application is being written: it speaks the same protocol, and lets anybody log in as
anybody. Applications send people here; there is nothing to begin from this page.</p>
<p><a class="button" href="auth/logout.html">Log out of the login service</a></p>`;
  sendPage(response, 'Development login service', body);
}

/** A page that says one thing. */
export function sendNote(response: ServerResponse, status: number, title: string, text: string): void {
  sendPage(response, title, html`<h1>${title}</h1><p>${text}</p>`, { status });
}

const refusals = {
  510: 'no common way to log in',
  520: 'version not supported',
  530: 'mistake in the request',
  540: 'interaction required',
  560: 'application not authorised',
  570: 'authentication declined',
} satisfies Record<Exclude<FailureStatus, 410>, string>;

function deviationsPanel(deviations: readonly string[]): Html {
  return html`<details open><summary>For the developer: the request deviates from the protocol</summary>
<ul>${deviations.map((deviation) => html`<li><bdi>${deviation}</bdi></li>`)}</ul>
<p class="quiet">It is answered all the same. With the option <code>strict</code> it would be rejected with status
530.</p></details>`;
}

function showRefusal([status, words]: [string, string]): Html {
  return html`<li><button name="status" value="${status}"><span class="wire">${status}</span> ${words}</button></li>`;
}

function showAccount({ principal, name, ptags }: Account): Html {
  const left = ptags.includes('current') ? [] : ['no longer current'];
  return html`<li><button name="account" value="${principal}"><strong>${name ?? principal}</strong>
<span class="wire">${principal}</span> <span class="quiet">${[...left, ...ptags].join(', ')}</span></button></li>`;
}

// Text of somebody else's may run from right to left; <bdi> keeps that from turning ours round.
function describe({ url, desc, msg, iact }: AuthRequest): Html {
  const host = html`<code>${new URL(url).host}</code>`;
  const who = desc ? html`<strong><bdi>${readText(desc)}</bdi></strong> at ${host}` : host;
  const again = iact && html` It wants you to authenticate again, even if you did before.`;
  const why = msg && html`<br>The reason that it gives: <bdi>${readText(msg)}</bdi>`;
  return html`${who} asks you to log in.${again}${why}`;
}

const characters: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"' };

/** The text that was encoded for the wire: character references become characters, to be escaped like any other. */
function readText(text: NonNullable<AuthRequest['desc']>): string {
  const encoded = typeof text === 'string' ? text : text.encoded;
  return encoded.replace(/&(?:#(\d{1,7})|(amp|lt|gt|quot));/g, (whole, code?: string, name = '') => {
    if (code === undefined) return characters[name] as string;
    const point = Number(code);
    return point <= 0x10ffff && !/[\p{Cc}\p{Cs}]/u.test(String.fromCodePoint(point))
      ? String.fromCodePoint(point)
      : whole;
  });
}

/** The application's origin: Chromium holds redirects that follow a form to `form-action` too. */
function formTarget(url: string): string {
  const { origin, protocol } = new URL(url);
  // A policy cannot name IPv6 addresses; and no other sign may end the directive.
  return /^https?:\/\/[\w.-]+(?::\d+)?$/.test(origin) ? origin : protocol;
}
