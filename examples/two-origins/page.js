import { connect } from '/client/index.js';

const { sockets } = document.documentElement.dataset;

open('query', '/by-ticket');
open('frame', '/by-frame');

/** Says what comes through the socket, and what becomes of it. */
function open(credential, path) {
  const say = (text) => {
    document.getElementById(credential).textContent = text;
  };
  connect(sockets + path, {
    credential,
    onMessage: say,
    onStatus: ({ state, reason = '', loginUrl }) => {
      say(`${state} ${reason}`);
      if (loginUrl) document.getElementById(credential).append(' ', makeLink(loginUrl));
    },
  });
}

function makeLink(href) {
  return Object.assign(document.createElement('a'), { href, textContent: 'Log in' });
}
