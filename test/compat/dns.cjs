// Stands in for DNS: every .localhost name is this machine.
const dns = require('node:dns');
const real = dns.lookup;
dns.lookup = function (host, options, callback) {
  if (typeof options === 'function') { callback = options; options = {}; }
  return real.call(dns, String(host).endsWith('.localhost') ? '127.0.0.1' : host, options, callback);
};
