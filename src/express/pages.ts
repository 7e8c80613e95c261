import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ErrorCode, SessionError, StatusError, type WebauthError } from '../errors.js';
import { type Html, html, type PageOptions, sendPage, sentence } from '../html.js';
import {
  addHeader,
  isSafe,
  loginChallenge,
  purposeOf,
  requestTarget,
  retryAfter,
  sendData,
  wantsPage,
} from '../http.js';
import type { AuthResponse } from '../response.js';
import type { WAA } from '../waa.js';

/** Answers with what went wrong: a page for people, JSON for programs. */
export function sendFailure(waa: WAA, error: WebauthError, request: IncomingMessage, response: ServerResponse): void {
  const { code, message, loginUrl } = error;
  const bearer = bearerErrors[error.code];
  if (bearer !== undefined) response.setHeader('WWW-Authenticate', `Bearer error="${bearer}"`);
  else if (error.status === 401) addHeader(response, 'WWW-Authenticate', loginChallenge(waa.origin));
  const wait = retryAfter(error.status);
  if (wait !== undefined) response.setHeader('Retry-After', wait);
  if (wantsPage(request)) sendFailurePage(waa, error, request, response);
  else sendData(response, error.status, { error: { code, message, loginUrl } });
}

/** Offers the logout, or says that it is done and what remains: the session at the login service. */
export function sendLogout(waa: WAA, who: Who | undefined, response: ServerResponse): void {
  if (who) sendPage(response, 'Log out', logoutForm(waa, who), { formAction: logoutOrigins(waa) });
  else sendPage(response, 'Logged out', loggedOut(waa), afterLogout(waa));
}

/** Says that a logout everywhere was done before, as for its retry. */
export function sendEndedTogether(waa: WAA, response: ServerResponse): void {
  sendPage(response, 'Logged out', loggedOut(waa, endedTogether), afterLogout(waa));
}

/** Answers the image of the pages after a logout, and clears the browser's cache unless another origin loads it. */
export function sendCleared(request: IncomingMessage, response: ServerResponse): void {
  const { 'sec-fetch-site': site = 'same-origin' } = request.headers;
  response.writeHead(200, {
    'Content-Type': 'image/svg+xml',
    'Content-Length': noImage.length,
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    'Cross-Origin-Resource-Policy': 'same-origin',
    // Not cookies: browsers clear those of the whole site, cam.ac.uk.
    ...(site === 'same-origin' && { 'Clear-Site-Data': '"cache"' }),
  });
  response.end(noImage);
}

const noImage = '<svg xmlns="http://www.w3.org/2000/svg"/>';

/** Says that the session cookie was removed from this browser, and that its session may live on. */
export function sendRemoved(waa: WAA, request: IncomingMessage, response: ServerResponse): void {
  if (!wantsPage(request)) sendData(response, 200, { removed: true, revoked: false });
  else sendPage(response, 'Removed from this browser', removedHere(waa), afterLogout(waa));
}

/** Policy of a page after a logout. */
function afterLogout(waa: WAA): PageOptions {
  return { formAction: logoutOrigins(waa), images: waa.clearsCache ? ["'self'"] : [] };
}

/** An image that clears the browser's cache as it loads. On the redirect of a logout, browsers ignore such a request. */
function cacheClearing({ clearsCache, routes }: WAA): Html | undefined {
  return clearsCache ? html`<img src="${routes.cleared}" alt="" hidden>` : undefined;
}

/**
 * Leads on to the login service. A redirect would not do: browsers hold every redirect that follows a form to the
 * `form-action` of the form's page, and a login service may redirect to further hosts.
 */
export function sendDeparture(waa: WAA, location: string, response: ServerResponse): void {
  const body = html`<h1>Going to the login service</h1>
    <p><a class="button main" href="${location}">Continue to ${new URL(waa.wls.authUrl).host}</a></p>`;
  sendPage(response, 'Logging in', body, { refresh: location });
}

function logoutOrigins({ wls: { logoutUrl } }: WAA): string[] {
  return logoutUrl === undefined ? [] : [new URL(logoutUrl).origin];
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
    'Your browser sent a session that this site did not make. If logging in again does not help, log out, or delete the cookies of this site.',
  ],
  ERR_STORE_UNAVAILABLE: ['Please try again in a moment', 'This site cannot look up sessions just now.'],
  ERR_COOKIES_BLOCKED: [
    'Your login could not be matched to your browser',
    'Allow cookies for this site. If you have logged in from another tab meanwhile, or took over half an hour, just try again. If nothing helps, please tell whoever runs this site.',
  ],
  ERR_PATH_MISMATCH: ['This site is not set up correctly', `You could not be logged in. ${tellThem}`],
  ERR_RESPONSE_REPLAYED: ['This login was used already', 'That happens after going back or reloading. Try again.'],
  ERR_ISSUE_FUTURE: ['The clocks of this site and of the login service disagree', tryAgain],
  ERR_ISSUE_STALE: ['This login took too long to arrive', tryAgain],
  ERR_PRINCIPAL_REFUSED: ['You may not enter here', 'This is for other people than the one whose account you used.'],
  ERR_PTAGS_REFUSED: ['You may not enter here', 'This is for other people than the one whose account you used.'],
  ERR_SCOPE_REFUSED: ['That token is not for this', 'It was made for something else.'],
  ERR_TOKEN_INVALID: ['That token is not good any more', 'It was used, or revoked, or is over.'],
  ERR_ORIGIN_REFUSED: ['That came from another site', 'Nothing was done. Use the buttons of this site itself.'],
  ERR_NAVIGATION_REQUIRED: [
    'That is not the way to log in',
    'Nothing was done. Open this site in a window of its own.',
  ],
  ERR_PREFETCH_REFUSED: ['Please log in', 'Your browser asked for this page before you did.'],
  ERR_LIMIT_REACHED: ['That was too much at once', 'Wait half a minute, and try again.'],
};

const otherwise = ['You could not be logged in', tryAgain] as const;

function sendFailurePage(waa: WAA, error: WebauthError, request: IncomingMessage, response: ServerResponse): void {
  const { path, query } = requestTarget(request);
  if (path === waa.routes.logout && request.method === 'POST' && error.status === 503) {
    const body = logoutFailure(waa, error, query);
    return sendPage(response, 'Not logged out', body, { ...afterLogout(waa), status: 503 });
  }
  if (path === waa.routes.logout && error.status === 401) {
    return sendPage(response, 'Not logged out elsewhere', othersGoOn(waa, error), { ...afterLogout(waa), status: 401 });
  }
  if (isSafe(request) && purposeOf(request) === 'frame' && needsWindow(error)) {
    return sendPage(response, 'Please log in', windowLink(waa, error), { status: error.status, framed: true });
  }
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

/** Whether a page in a frame leads on only in the top window, since logins are not for frames. */
function needsWindow({ code, status, loginUrl }: WebauthError): boolean {
  return code === 'ERR_NAVIGATION_REQUIRED' || (status === 401 && loginUrl !== undefined);
}

/**
 * Other sites may frame it: it says nothing of the user, and its link does no more than any link to the login. A button
 * that posts would let such a site begin logins in our name (clickjacking).
 */
function windowLink(waa: WAA, { code, loginUrl = waa.loginUrl('') }: WebauthError): Html {
  return html`<h1>Please log in</h1>
    <p>Logging in takes a window of its own. It cannot be done inside another page.</p>
    <p><a class="button main" href="${loginUrl}" target="_top">Log in</a></p>
    <p class="quiet"><code>${code}</code></p>`;
}

/** The cookie is still there: to try again, or to be removed though the session may live on. */
function logoutFailure(waa: WAA, { code, message }: WebauthError, query: string): Html {
  const { logout } = waa.routes;
  const again = query.split('&').includes('everywhere=yes') ? `${logout}?everywhere=yes` : logout;
  return html`<h1>You are not logged out yet</h1>
    <p>Your session may still work, here or on another machine of this site. Please try again in a moment.</p>
    <p>If you cannot wait, remove it from this browser: then nobody can use it here. It may live on elsewhere until it
    expires.</p>
    <form method="post" action="${again}"><p class="row"><button class="main">Try again</button>
      <button formaction="${logout}?here=yes">Remove it from this browser only</button></p></form>
    ${cacheClearing(waa)}
    <p class="quiet">${sentence(message)} <code>${code}</code></p>`;
}

/** A logout of all sessions takes a session that shows who the user is. */
function othersGoOn(waa: WAA, { code, message, loginUrl = waa.loginUrl('') }: WebauthError): Html {
  return html`<h1>Your other sessions were not ended</h1>
    <p>You are logged out in this browser. To log out on all your devices, log in first, and then log out there.</p>
    <div class="row">${loginButton('Log in', loginUrl)}</div>
    ${cacheClearing(waa)}
    <p class="quiet">${sentence(message)} <code>${code}</code></p>`;
}

/** What nobody signed can be anybody's words. */
function signedWords({ sig, msg }: AuthResponse): string {
  return sig === undefined ? '' : msg;
}

function links(waa: WAA, error: WebauthError, lost: boolean): Html {
  if (error.status === 403) {
    return html`<div class="row">${error.loginUrl && again(waa, error, error.loginUrl)}
      <a class="button" href="${waa.routes.home}">To the start page</a>
      <a class="button" href="${waa.routes.logout}">Log out</a></div>`;
  }
  const label = error instanceof SessionError && error.status === 401 ? 'Log in' : 'Try again';
  // The logout also removes cookies that a sibling host has set beside ours.
  const out = error.code === 'ERR_SESSION_INVALID' && html`<a class="button" href="${waa.routes.logout}">Log out</a>`;
  return html`<div class="row">${loginButton(label, error.loginUrl ?? waa.loginUrl(''), { newTab: lost })}
    ${out}</div>`;
}

/** A page of another name of this host cannot post to the login. A link leads to the configured name. */
function again({ origin }: WAA, { code }: WebauthError, loginUrl: string): Html {
  if (code !== 'ERR_ORIGIN_REFUSED') return loginButton('Try again', loginUrl);
  return html`<a class="button main" href="${origin}${loginUrl}">Log in</a>`;
}

/** A button that begins a login. It posts, since no header of a navigation tells a click from a script or a redirect. */
function loginButton(label: string, loginUrl: string, { isMain = true, newTab = false } = {}): Html {
  // In a new tab, the request body stays with this page for as long as the page is not left.
  const target = newTab && html` target="_blank" rel="noopener"`;
  const main = isMain && html` class="main"`;
  return html`<form method="post" action="${loginUrl}"${target}><button${main}>${label}</button></form>`;
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

/** Sessions that began after the revocation of the others go on. */
const endedTogether = html`<p>Your sessions on other devices were ended together with this one. Where you have logged in
  since then, you are still logged in.</p>`;

function loggedOut(waa: WAA, more?: Html): Html {
  return html`<h1>You are logged out of this site</h1>
    ${more}
    ${loginServiceLogout(waa)}
    ${cacheClearing(waa)}
    <div class="row">${loginButton('Log in again', waa.loginUrl(''), { isMain: false })}</div>`;
}

function removedHere(waa: WAA): Html {
  return html`<h1>Your session was removed from this browser</h1>
    <p><strong>It could not be ended everywhere.</strong> A copy of it, if there is one, may work until it expires. If
    you fear that somebody has one, please tell whoever runs this site.</p>
    ${loginServiceLogout(waa)}
    ${cacheClearing(waa)}
    <div class="row">${loginButton('Log in again', waa.loginUrl(''), { isMain: false })}</div>`;
}

function loginServiceLogout({ wls: { logoutUrl } }: WAA): Html | undefined {
  if (logoutUrl === undefined) return undefined;
  return html`<p>You may still be logged in at the login service, <code>${new URL(logoutUrl).host}</code>, which then lets
      you back in here without asking. On a shared computer log out there too, or the next person can enter as you.</p>
      <p><a class="button main" href="${logoutUrl}">Log out of the login service too</a></p>`;
}
