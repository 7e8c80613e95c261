// A chart of ratios against their goals: a picture for a light page and one for a dark page.

const WIDTH = 400;
const MARGIN = 14;
const ROW = 54;
const HEAD = 62;
/** How many times its goal a bar can show; longer ones are cut off there. */
const MOST = 2;

const colours = {
  light: { text: '#1f2328', quiet: '#59636e', track: '#e7eaee', held: '#1a7f64', missed: '#b35900', line: '#1f2328' },
  dark: { text: '#f0f6fc', quiet: '#9198a1', track: '#2b323b', held: '#3fb68b', missed: '#e08a3c', line: '#f0f6fc' },
};

/** @param rows `{ name, value, goal }`. @param theme `light` or `dark`. */
export function drawChart(rows, theme) {
  const colour = colours[theme];
  const height = HEAD + rows.length * ROW + 4;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="title desc" font-family="system-ui, sans-serif" font-size="14" fill="${colour.text}">
<title id="title">Speed against the goals</title>
<desc id="desc">${escapeText(rows.map(describe).join(' '))}</desc>
<text x="${MARGIN}" y="24" font-size="16" font-weight="600">How many times as fast, and the goal</text>
<text x="${MARGIN}" y="44" fill="${colour.quiet}">The line is each row’s goal.</text>
${rows.map((row, index) => drawRow(row, HEAD + index * ROW, colour)).join('\n')}
</svg>
`;
}

function drawRow(row, top, colour) {
  const full = WIDTH - 2 * MARGIN;
  const length = Math.round((full * Math.min(row.value / row.goal, MOST)) / MOST);
  const goal = MARGIN + Math.round(full / MOST);
  const held = row.value >= row.goal;
  const value = `<tspan font-weight="600">${format(row.value)}</tspan>`;
  return `<text x="${MARGIN}" y="${top + 16}">${escapeText(row.name)}</text>
<text x="${WIDTH - MARGIN}" y="${top + 16}" text-anchor="end">${value}<tspan fill="${colour.quiet}"> · goal ${row.goal}${held ? '' : ' missed'}</tspan></text>
<rect x="${MARGIN}" y="${top + 24}" width="${full}" height="14" rx="3" fill="${colour.track}"/>
<rect x="${MARGIN}" y="${top + 24}" width="${length}" height="14" rx="3" fill="${held ? colour.held : colour.missed}"/>
<path d="M${goal} ${top + 21}v20" stroke="${colour.line}" stroke-width="2"/>`;
}

function describe({ name, value, goal }) {
  return `${name}: ${format(value)}, ${value >= goal ? 'at least' : 'less than'} the goal of ${goal}.`;
}

/** Two digits are as many as the measurements are good for; never rounded up to a goal that was missed. */
export function format(value) {
  return value < 10 ? (Math.floor(value * 100) / 100).toFixed(2) : String(Math.floor(value));
}

function escapeText(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
