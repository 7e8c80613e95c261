// Verifies a response by itself, without sessions, cookies or a web framework.
//
//   npx tsx examples/verify.ts
import { formatRequest, raven, StatusError, VerificationError, verifyResponse } from 'ucam-webauth';

// To log somebody in, send the browser here, and remember what you asked for.
const url = 'https://example.cam.ac.uk/login/done';
console.log(formatRequest(raven.authUrl, { url, desc: 'Example', params: 'a token of this attempt' }));

// What Raven said in 2005 to a request that lacked a parameter, signed with its own key.
const encoded =
  "1!530!Missing required parameter 'ver'!20050317T151628Z!1111072588-26568-7!http://raven.cam.ac.uk/debug.html!!!!!!2!" +
  'ZUcFzGfEPyVhYqHYK9gDfewP6xSOKNvdOcAp3ZpzGoDAmY1eG704aw1aDTOh6nTYtZAoGNqio33CCGWT29fjY10phtSEe8xCNP9WgpohOze9SOYUXJ1' +
  '0uuVRXBXE.1DCiCPZxUODZPEaeOv8P0zgm3JfRsVdDy9SnDjFvQQ43O8_';

for (const now of [new Date('2005-03-17T15:16:30Z'), new Date()]) {
  try {
    const response = verifyResponse(encoded, {
      keys: raven.keys,
      url: 'http://raven.cam.ac.uk/debug.html',
      params: null,
      now,
    });
    console.log(`${response.principal} logged in`);
  } catch (error) {
    if (error instanceof StatusError) console.log(`genuine, and nobody logged in: ${error.code}`);
    else if (error instanceof VerificationError) console.log(`not acceptable: ${error.code}, ${error.message}`);
    else throw error;
  }
}
