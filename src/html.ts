import { createHash } from 'node:crypto';
import type { ServerResponse } from 'node:http';

/** Text that is safe in HTML, in elements and in quoted attributes. */
export class Html {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** A template whose values are escaped, unless they are {@link Html} themselves; lists are joined. */
export function html(strings: TemplateStringsArray, ...values: unknown[]): Html {
  return new Html(strings.reduce((text, string, i) => text + write(values[i - 1]) + string));
}

/** A message of ours as a sentence. */
export function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

/** What a page may do beyond showing itself. */
export interface PageOptions {
  readonly status?: number;
  /** Origins, beside our own, to which its forms may lead. */
  readonly formAction?: readonly string[];
  /** Whether pages of any origin may frame it: false. */
  readonly framed?: boolean;
  /** Sources of images, beside those that are in the page. */
  readonly images?: readonly string[];
  /** Address to which the page leads at once, without a script. */
  readonly refresh?: string;
  /** A script, run by its hash. */
  readonly script?: string;
  /** The path of a module, of this origin, which may import others of it. */
  readonly module?: string;
  /** What it looks like, beside what all pages do. */
  readonly style?: string;
  /** Origins that the script may connect to. */
  readonly connect?: readonly string[];
  /** Origins whose pages it may have in frames. */
  readonly frames?: readonly string[];
}

/** Answers with a page that nobody may store or add scripts to, nor frame, unless the options say so. */
export function sendPage(response: ServerResponse, title: string, body: Html, options: PageOptions = {}): void {
  const { status = 200, formAction = [], script, module, connect = ["'none'"], frames = [], framed = false } = options;
  const { images = [] } = options;
  const page = render(title, body, options);
  response.writeHead(status, {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Length': Buffer.byteLength(page),
    'Cache-Control': 'no-store',
    'Content-Security-Policy': [
      "default-src 'none'",
      `img-src ${['data:', ...images].join(' ')}`,
      `style-src ${hash(styleOf(options))}`,
      `script-src ${module ? "'self'" : script ? hash(script) : "'none'"}`,
      `connect-src ${connect.join(' ')}`,
      ...(frames.length > 0 ? [`frame-src ${frames.join(' ')}`] : []),
      `form-action ${["'self'", ...formAction].join(' ')}`,
      ...(framed ? [] : ["frame-ancestors 'none'"]),
      "base-uri 'none'",
    ].join('; '),
    ...(framed ? {} : { 'X-Frame-Options': 'DENY' }),
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
  });
  response.end(page);
}

function write(value: unknown): string {
  if (value === undefined || value === null || value === false) return '';
  if (value instanceof Html) return value.text;
  if (Array.isArray(value)) return value.map(write).join('');
  return String(value).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

function styleOf(options: PageOptions): string {
  return style + (options.style ?? '');
}

function render(title: string, body: Html, options: PageOptions): string {
  const { script, module, refresh } = options;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${html`${title}`.text}</title>
<link rel="icon" href="data:,">
${refresh ? html`<meta http-equiv="refresh" content="0; url=${refresh}">\n`.text : ''}<style>${styleOf(options)}</style>
</head>
<body>
<main>
${body.text}
</main>
${script ? `<script>${script}</script>` : ''}${module ? `<script type="module" src="${module}"></script>` : ''}
</body>
</html>
`;
}

/** A script or style, as a Content-Security-Policy names it. */
export function hash(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}

const style = `
:root { --paper: #fff; --ink: #1c2326; --quiet: #57636a; --line: #d5dbde; --panel: #f4f6f6; --accent: #00695c;
  --on-accent: #fff; --good: #1b6e35; --bad: #a8200d; }
@media (prefers-color-scheme: dark) { :root { --paper: #14191b; --ink: #e4e9ea; --quiet: #a0acb2; --line: #374247;
  --panel: #1d2427; --accent: #7fd1c3; --on-accent: #06231f; --good: #82d79b; --bad: #ff9d8c; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 system-ui, sans-serif;
  overflow-wrap: break-word; }
main { max-width: 42rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .6rem; }
p { margin: 0 0 1rem; }
a { color: var(--accent); }
code, .wire { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); font-size: .925rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
.row { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; }
.panel { border: 1px solid var(--line); border-radius: .5rem; background: var(--panel); padding: .9rem 1.1rem; }
.panel > :last-child { margin-bottom: 0; }
button, .button { display: inline-block; font: inherit; line-height: 1.3; color: var(--ink); background: var(--panel);
  border: 1px solid var(--quiet); border-radius: .4rem; padding: .65rem 1rem; cursor: pointer; text-decoration: none; }
button:hover, .button:hover { border-color: var(--accent); }
input { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--quiet); border-radius: .4rem;
  padding: .5rem .75rem; min-width: 0; flex: 1 1 12rem; }
button.main, .button.main { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
td { padding-right: 0; }
ul, ol { padding-left: 1.3rem; margin: 0 0 1rem; }
.held { list-style: "✓  "; }
.held ::marker { color: var(--good); }
details { margin-top: 1.5rem; }
summary { cursor: pointer; padding: .6rem 0; }
form { margin: 0; }
div.row { margin-bottom: 1rem; }
.choices { list-style: none; padding: 0; margin: 0 0 1rem; display: grid; gap: .5rem; }
.choices button { width: 100%; text-align: left; display: flex; flex-wrap: wrap; gap: 0 .75rem;
  align-items: baseline; }
.items { list-style: none; padding: 0; margin: 0 0 1rem; }
.items li { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: center; padding: .5rem 0; border-bottom: 1px solid var(--line); }
.items p { margin: 0; flex: 1 1 15rem; }
.choices .quiet { margin-left: auto; text-align: right; }
`;
