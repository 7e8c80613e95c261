/** Where somebody may want to be led after a login. */
export const returns: readonly string[] = [
  ...['/private', '', '/', '//', '///', '//evil.example', '/\\evil.example', '\\\\evil.example', '/%5cevil.example'],
  ...['https://evil.example/', 'http:/evil.example', 'javascript:alert(1)', '/\t/evil.example', '%2f%2fevil.example'],
  ...[
    '/.//evil.example',
    '/..//evil.example',
    '/@evil.example',
    'private',
    '..',
    '/a?b#c',
    '/x y',
    ' /x',
    '/%',
    '/%zz',
  ],
  ...['/%0d%0aSet-Cookie:a=b', '/\r\nSet-Cookie: a=b', '/\0', '/é', '/\u2028', '/webauth/logout', '/webauth/callback'],
  ...['/webauth/login?return=/webauth/login', '/private?WLS-Response=x', '/<script>', '/"onload="x', "/'", '/&amp;'],
  ...[`/${'a'.repeat(2047)}`, `/${'a'.repeat(2048)}`, `/${'é'.repeat(800)}`],
];
