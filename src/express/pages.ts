import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ErrorCode, SessionError, StatusError, type WebauthError } from '../errors.js';
import { type Html, html, sendPage, sentence } from '../html.js';
import { loginChallenge, retryAfter, sendData, wantsPage } from '../http.js';
import type { AuthResponse } from '../response.js';
import type { WAA } from '../waa.js';

/** Answers with what went wrong: a page for people, JSON for programs. */
export function sendFailure(waa: WAA, error: WebauthError, request: IncomingMessage, response: ServerResponse): void {
  const { code, message, loginUrl } = error;
  const bearer = bearerErrors[error.code];
  if (bearer !== undefined) response.setHeader('WWW-Authenticate', `Bearer error="${bearer}"`);
  else if (error.status === 401) response.appendHeader('WWW-Authenticate', loginChallenge(waa.origin));
  const wait = retryAfter(error.status);
  if (wait !== undefined) response.setHeader('Retry-After', wait);
  if (wantsPage(request)) sendFailurePage(waa, error, request, response);
  else sendData(response, error.status, { error: { code, message, loginUrl } });
}

/** Offers the logout, or says that it is done and what remains: the session at the login service. */
export function sendLogout(waa: WAA, who: Who | undefined, response: ServerResponse): void {
  const formAction = waa.wls.logoutUrl === undefined ? [] : [new URL(waa.wls.logoutUrl).origin];
  if (who) sendPage(response, 'Log out', logoutForm(waa, who), { formAction });
  else sendPage(response, 'Logged out', loggedOut(waa), { formAction });
}

/** What the scheme calls it (RFC 6750, 3.1). */
const bearerErrors: { readonly [code in ErrorCode]?: string } = {
  ERR_TOKEN_INVALID: 'invalid_token',
  ERR_SCOPE_REFUSED: 'insufficient_scope',
};

const tellThem = 'Please tell whoever runs this site.';
const tryAgain = 'Try again. If that does not help, please tell whoever runs this site.';

/** A heading, and what the person can do. The error's own message says what was wrong. */
const advice: { readonly [code in ErrorCode]?: readonly [heading: string, advice: string] } = {
  ERR_WLS_CANCELLED: ['Login cancelled', 'Nothing has changed. You can try again whenever you like.'],
  ERR_WLS_NO_ATYPES: ['That way of logging in is not available', tellThem],
  ERR_WLS_VERSION: ['The login service does not understand this site', tellThem],
  ERR_WLS_REQUEST: ['The login service does not understand this site', tellThem],
  ERR_WLS_INTERACTION: ['You need to log in yourself', 'Try again, and the login service will ask you who you are.'],
  ERR_WLS_UNAUTHORISED: ['This site may not use the login service', tellThem],
  ERR_WLS_DECLINED: [
    'The login service declined',
    'Your account may not be allowed to log in; its help desk can say why.',
  ],
  ERR_SESSION_MISSING: ['Please log in', 'You are not logged in.'],
  ERR_SESSION_EXPIRED: ['Please log in again', 'Your session is over.'],
  ERR_SESSION_IDLE: ['Please log in again', 'You were away for so long that your session was ended.'],
  ERR_SESSION_REVOKED: ['Please log in again', 'Your session was ended.'],
  ERR_STEP_UP_REQUIRED: [
    'Please authenticate again',
    'You are logged in, and this asks you to show once more who you are.',
  ],
  ERR_IACT_UNSATISFIED: ['That login is not what this page asks for', tryAgain],
  ERR_AUTH_UNACCEPTABLE: [
    'That way of logging in is not enough here',
    'Try again in another way. If that does not help, please tell whoever runs this site.',
  ],
  ERR_SESSION_INVALID: [
    'Please log in again',
    'Your browser sent a session that this site did not make. If logging in again does not help, delete the cookies of this site.',
  ],
  ERR_STORE_UNAVAILABLE: ['Please try again in a moment', 'This site cannot look up sessions just now.'],
  ERR_COOKIES_BLOCKED: [
    'Your login could not be matched to your browser',
    'Allow cookies for this site. If you have logged in from another tab meanwhile, or took over half an hour, just try again. If nothing helps, please tell whoever runs this site.',
  ],
  ERR_RESPONSE_REPLAYED: ['This login was used already', 'That happens after going back or reloading. Try again.'],
  ERR_ISSUE_FUTURE: ['The clocks of this site and of the login service disagree', tryAgain],
  ERR_ISSUE_STALE: ['This login took too long to arrive', tryAgain],
  ERR_PRINCIPAL_REFUSED: ['You may not enter here', 'This is for other people than the one whose account you used.'],
  ERR_PTAGS_REFUSED: ['You may not enter here', 'This is for other people than the one whose account you used.'],
  ERR_SCOPE_REFUSED: ['That token is not for this', 'It was made for something else.'],
  ERR_TOKEN_INVALID: ['That token is not good any more', 'It was used, or revoked, or is over.'],
  ERR_ORIGIN_REFUSED: ['That came from another site', 'Nothing was done. Use the buttons of this site itself.'],
  ERR_LIMIT_REACHED: ['That was too much at once', 'Wait half a minute, and try again.'],
};

const otherwise = ['You could not be logged in', tryAgain] as const;

function sendFailurePage(waa: WAA, error: WebauthError, request: IncomingMessage, response: ServerResponse): void {
  const [heading, whatToDo] = advice[error.code] ?? otherwise;
  const lost = request.method !== 'GET' && request.method !== 'HEAD' && error.status === 401;
  const said = error instanceof StatusError ? signedWords(error.response as AuthResponse) : '';
  const body = html`<h1>${heading}</h1>
    <p>${whatToDo}</p>
    ${
      lost &&
      html`<p><strong>What you sent was not saved.</strong> The button opens another tab: log in there, come back here,
      and reload this page. Your browser then asks whether to send it again.</p>`
    }
    ${said && said !== error.message && html`<p>The login service says: “${said}”</p>`}
    ${links(waa, error, lost)}
    <p class="quiet">${sentence(error.message)} <code>${error.code}</code></p>`;
  sendPage(response, heading, body, { status: error.status });
}

/** What nobody signed can be anybody's words. */
function signedWords({ sig, msg }: AuthResponse): string {
  return sig === undefined ? '' : msg;
}

function links(waa: WAA, error: WebauthError, lost: boolean): Html {
  if (error.status === 403) {
    const again = error.loginUrl && html`<a class="button main" href="${error.loginUrl}">Try again</a>`;
    return html`<p class="row">${again} <a class="button" href="${waa.routes.home}">To the start page</a>
      <a class="button" href="${waa.routes.logout}">Log out</a></p>`;
  }
  const label = error instanceof SessionError && error.status === 401 ? 'Log in' : 'Try again';
  // What was sent stays with this page, for as long as it is not left.
  const tab = lost && html` target="_blank" rel="noopener"`;
  return html`<p><a class="button main" href="${error.loginUrl ?? waa.loginUrl('')}"${tab}>${label}</a></p>`;
}

/** Who may be logged in, if that is known. */
interface Who {
  readonly principal: string | undefined;
}

function logoutForm(waa: WAA, { principal }: Who): Html {
  const who = principal
    ? html`You are logged in as <strong>${principal}</strong>.`
    : 'You may still be logged in here.';
  return html`<h1>Log out?</h1>
    <p>${who}</p>
    <form method="post" action="${waa.routes.logout}" class="row"><button class="main">Log out</button>
      <button formaction="${waa.routes.logout}?everywhere=yes">Log out on all my devices</button></form>`;
}

function loggedOut(waa: WAA): Html {
  const { logoutUrl } = waa.wls;
  const host = logoutUrl && new URL(logoutUrl).host;
  return html`<h1>You are logged out of this site</h1>
    ${
      host &&
      html`<p>You may still be logged in at the login service, <code>${host}</code>, which then lets you back in
      here without asking. On a shared computer log out there too, or the next person can enter as you.</p>
      <p><a class="button main" href="${logoutUrl}">Log out of the login service too</a></p>`
    }
    <p><a class="button" href="${waa.loginUrl('')}">Log in again</a></p>`;
}
