// Runs calls of npm's dicomweb-client, the one that OHIF is built on, and tells what each gave.
//
// stdin:  {"url": …, "headers": {…}, "calls": [{"method": …, "options": {…}, "singlepart": false | "bulkdata,…"}, …]}
// stdout: {"methods": [its public methods], "answers": [{"value": …} | {"status": …} | {"error": …}, …]}
// Bytes stand as {"$bytes": base64} both ways.
"use strict";

// The client is made for browsers. Node.js has no XMLHttpRequest, and xhr2 is one.
global.XMLHttpRequest = require("xhr2");
const { api } = require("dicomweb-client");

const fromJson = (_, value) => {
  if (value && typeof value === "object" && "$bytes" in value) {
    const bytes = Buffer.from(value.$bytes, "base64");
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  }
  return value;
};

const toJson = (value) => {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    return { $bytes: Buffer.from(value).toString("base64") };
  }
  return Array.isArray(value) ? value.map(toJson) : value;
};

const main = async () => {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { url, headers, calls } = JSON.parse(Buffer.concat(chunks).toString("utf8"), fromJson);
  const answers = [];
  for (const { method, options, singlepart } of calls) {
    const client = new api.DICOMwebClient({ url, headers, singlepart, verbose: false });
    try {
      const value = await client[method](options);
      answers.push({ value: toJson(value === undefined ? null : value) });
    } catch (error) {
      answers.push(error.status ? { status: error.status } : { error: String(error.stack) });
    }
  }
  const methods = Object.getOwnPropertyNames(api.DICOMwebClient.prototype).filter(
    (name) => name !== "constructor" && !name.startsWith("_"),
  );
  process.stdout.write(JSON.stringify({ methods, answers }));
};

console.debug = console.log = () => {}; // the client talks, and standard output is ours
main();
