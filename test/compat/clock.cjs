// Stands in for patience: the CLI looks every two seconds for five minutes; here a
// look takes half a second and seems to take twenty.
const later = globalThis.setTimeout;
const now = Date.now;
let ahead = 0;
Date.now = () => now() + ahead;
globalThis.setTimeout = (fn, ms, ...rest) => (ms === 2000 ? later(() => { ahead += 20000; fn(...rest); }, 500) : later(fn, ms, ...rest));
