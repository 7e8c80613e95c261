// Has this process use version 5 of the package redis in place of version 6: for `node --import`.
import { register } from 'node:module';

const hook = `
  export async function resolve(specifier, context, next) {
    return next(specifier === 'redis' ? 'redis5' : specifier, context);
  }`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);
