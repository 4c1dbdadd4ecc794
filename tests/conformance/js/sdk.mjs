// Drives one published major of the Optimizely JavaScript SDK by commands: one JSON object a line on stdin, one answer a
// line on stdout; see the functions in `commands`. When stdin ends and nothing is on its way any more, the last line is
// the list of everything that the SDK logged. Every request is made by the SDK, none by this script.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const logs = [];
let client;

// Version 5 speaks HTTPS alone by itself. Its public options take another carrier for the requests that it makes.
const plainHttp = {
  makeRequest(url, headers, method, body) {
    const answer = async () => {
      const response = await fetch(url, { method, headers, body });
      return { statusCode: response.status, headers: Object.fromEntries(response.headers), body: await response.text() };
    };
    return { responsePromise: answer(), abort: () => {} };
  },
};

function openVersion5(sdk, datafile) {
  sdk.setLogLevel("debug");
  return sdk.createInstance({
    datafile,
    odpOptions: { eventRequestHandler: plainHttp, segmentsRequestHandler: plainHttp },
    logger: { log: (level, message) => logs.push(message) },
    eventDispatcher: { dispatchEvent: (event, done) => done({ statusCode: 204 }) },
  });
}

function openVersion6(sdk, datafile) {
  return sdk.createInstance({
    projectConfigManager: sdk.createStaticProjectConfigManager({ datafile: JSON.stringify(datafile) }),
    odpManager: sdk.createOdpManager(),
    logger: sdk.createLogger({ level: sdk.DEBUG, logHandler: { log: (level, message) => logs.push(message) } }),
  });
}

const commands = {
  async open({ sdk: name, datafile }) {
    const sdk = require(name);
    client = sdk.createOdpManager ? openVersion6(sdk, datafile) : openVersion5(sdk, datafile);
    await client.onReady();
    return {};
  },
  async decide({ user, flag, segment }) {
    const context = client.createUserContext(user);
    const fetched = await context.fetchQualifiedSegments(["IGNORE_CACHE"]);
    const decision = context.decide(flag, ["DISABLE_DECISION_EVENT"]);
    return {
      fetched,
      segments: context.qualifiedSegments,
      qualified: context.isQualifiedFor(segment),
      variation: decision.variationKey,
      enabled: decision.enabled,
    };
  },
  async send({ action, type, identifiers, data }) {
    client.sendOdpEvent(action, type, new Map(Object.entries(identifiers)), new Map(Object.entries(data)));
    return {};
  },
  async close() {
    await client.close();
    return {};
  },
};

process.once("beforeExit", () => console.log(JSON.stringify(logs)));

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line);
  console.log(JSON.stringify(await commands[command](parameters)));
}
