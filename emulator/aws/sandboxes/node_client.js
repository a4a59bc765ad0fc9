// The client of the Lambda runtime API for handlers in JavaScript: fetch an event, call the handler, post the result.
//
// Protocol: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
// Handlers: https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html

"use strict";

const fs = require("fs");
const http = require("http");
const path = require("path");
const { Writable } = require("stream");
const { format } = require("util");
const { pathToFileURL } = require("url");

const STREAMED = Symbol("streamed handler");
const PRELUDE = Symbol("prelude of a streamed HTTP response");
// What ends the JSON before the body of a streamed HTTP response.
const PRELUDE_END = Buffer.alloc(8);
// The kind of a frame of text without a level, as in runtime_logging.py.
const FRAME = 0xa55a0003;
const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const METHODS = { trace: "TRACE", debug: "DEBUG", log: "INFO", info: "INFO", warn: "WARN", error: "ERROR" };

const [ADDRESS, ...PREFIX] = process.env.AWS_LAMBDA_RUNTIME_API.split("/");
const [HOST, PORT] = ADDRESS.split(":");
const API = `${["", ...PREFIX].join("/")}/2018-06-01/runtime`;
const AGENT = new http.Agent({ keepAlive: true, maxSockets: 1 });
let requestId;

class RuntimeFault extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

function request(method, target, body, headers) {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { "Content-Length": Buffer.byteLength(body) };
    const options = { host: HOST, port: PORT, agent: AGENT, method, path: API + target, headers: { ...headers, ...length } };
    const sent = http.request(options, (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () => resolve({ headers: response.headers, body: Buffer.concat(pieces) }));
      response.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

// Write one event of the log, framed: it may have several lines.
function writeEvent(text) {
  const content = Buffer.from(`${text}\n`);
  const header = Buffer.alloc(16);
  header.writeUInt32BE(FRAME, 0);
  header.writeUInt32BE(content.length, 4);
  header.writeBigUInt64BE(BigInt(Date.now()) * 1000n, 8);
  let frame = Buffer.concat([header, content]);
  while (frame.length > 0) {
    try {
      frame = frame.subarray(fs.writeSync(1, frame));
    } catch (error) {
      if (error.code !== "EAGAIN") return;
    }
  }
}

function setUpConsole() {
  const isJson = process.env.AWS_LAMBDA_LOG_FORMAT === "JSON";
  const least = LEVELS.indexOf(process.env.AWS_LAMBDA_LOG_LEVEL || "TRACE");
  for (const [method, level] of Object.entries(METHODS)) {
    console[method] = (...values) => {
      if (isJson && LEVELS.indexOf(level) < least) return;
      const timestamp = new Date().toISOString();
      const text = format(...values);
      const message = values.length === 1 && typeof values[0] === "object" ? values[0] : text;
      writeEvent(isJson ? JSON.stringify({ timestamp, level, requestId, message }) : `${timestamp}\t${requestId}\t${level}\t${text}`);
    };
  }
}

function describe(error) {
  if (error instanceof Error) {
    return { errorType: error.name, errorMessage: error.message, trace: (error.stack || "").split("\n") };
  }
  return { errorType: typeof error, errorMessage: format(error), trace: [] };
}

function postError(target, error, label) {
  const body = describe(error);
  console.error(label, JSON.stringify({ errorType: body.errorType, errorMessage: body.errorMessage, stack: body.trace }));
  return request("POST", target, JSON.stringify(body), { "Lambda-Runtime-Function-Error-Type": body.errorType });
}

async function loadModule(file) {
  const found = ["", ".js", ".mjs", ".cjs"].map((end) => file + end).find((name) => fs.existsSync(name) && fs.statSync(name).isFile());
  if (found === undefined) {
    throw new RuntimeFault("Runtime.ImportModuleError", `Error: Cannot find module '${path.basename(file)}'`);
  }
  try {
    return await import(pathToFileURL(found).href);
  } catch (error) {
    if (error instanceof SyntaxError) throw new RuntimeFault("Runtime.UserCodeSyntaxError", `SyntaxError: ${error.message}`);
    if (error && (error.code === "MODULE_NOT_FOUND" || error.code === "ERR_MODULE_NOT_FOUND")) {
      throw new RuntimeFault("Runtime.ImportModuleError", `Error: ${error.message}`);
    }
    throw error;
  }
}

async function loadHandler(name) {
  const folder = path.dirname(name);
  const [file, ...members] = path.basename(name).split(".");
  if (members.length === 0) throw new RuntimeFault("Runtime.MalformedHandlerName", "Bad handler");
  const loaded = await loadModule(path.resolve(process.cwd(), folder, file));
  const of = (root) => members.reduce((value, member) => (value === undefined || value === null ? undefined : value[member]), root);
  const handler = of(loaded) || of(loaded.default);
  if (handler === undefined) throw new RuntimeFault("Runtime.HandlerNotFound", `${name} is undefined or not exported`);
  if (typeof handler !== "function") throw new RuntimeFault("Runtime.HandlerNotFound", `${name} is not a function`);
  return handler;
}

class ResponseStream extends Writable {
  constructor() {
    super();
    this.pieces = [];
  }

  _write(piece, encoding, done) {
    if (this[PRELUDE] !== undefined) {
      this.pieces.push(Buffer.from(JSON.stringify(this[PRELUDE])), PRELUDE_END);
      this[PRELUDE] = undefined;
    }
    this.pieces.push(Buffer.from(piece, encoding));
    done();
  }

  setContentType(type) {
    this.contentType = type;
  }
}

globalThis.awslambda = {
  streamifyResponse(handler) {
    handler[STREAMED] = true;
    return handler;
  },
  HttpResponseStream: {
    from(stream, prelude) {
      stream.setContentType("application/vnd.awslambda.http-integration-response");
      stream[PRELUDE] = prelude;
      return stream;
    },
  },
};

function callStreamed(handler, event, context) {
  const stream = new ResponseStream();
  const finished = new Promise((resolve, reject) => stream.on("finish", resolve).on("error", reject));
  return Promise.resolve(handler(event, stream, context)).then(async () => {
    if (!stream.writableEnded) stream.end();
    await finished;
    return { body: Buffer.concat(stream.pieces), type: stream.contentType || "application/octet-stream" };
  });
}

function call(handler, event, context) {
  if (handler[STREAMED]) return callStreamed(handler, event, context);
  return new Promise((resolve, reject) => {
    const done = (error, result) => (error === undefined || error === null ? resolve(result) : reject(error));
    context.done = done;
    context.succeed = resolve;
    context.fail = reject;
    const returned = handler(event, context, done);
    if (returned !== null && typeof returned === "object" && typeof returned.then === "function") {
      returned.then(resolve, reject);
    } else if (handler.length < 3) {
      resolve(returned);
    }
  }).then((result) => ({ body: JSON.stringify(result === undefined ? null : result), type: "application/json" }));
}

function contextOf(headers) {
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  const client = headers["lambda-runtime-client-context"];
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: client ? JSON.parse(client) : undefined,
    identity: undefined,
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
  };
}

async function serveOne(handler) {
  const next = await request("GET", "/invocation/next");
  requestId = next.headers["lambda-runtime-aws-request-id"];
  process.env._X_AMZN_TRACE_ID = next.headers["lambda-runtime-trace-id"] || "";
  const target = `/invocation/${requestId}`;
  let result;
  try {
    result = await call(handler, JSON.parse(next.body.toString()), contextOf(next.headers));
  } catch (error) {
    await postError(`${target}/error`, error, "Invoke Error ");
    return;
  }
  await request("POST", `${target}/response`, result.body, { "Content-Type": result.type });
}

function endWith(kind) {
  return (reason) => {
    const fault = new RuntimeFault(kind, reason instanceof Error ? `${reason.name}: ${reason.message}` : format(reason));
    fault.stack = reason instanceof Error ? reason.stack : fault.stack;
    const target = requestId === undefined ? "/init/error" : `/invocation/${requestId}/error`;
    // The agent's only connection may wait for an event.
    AGENT.maxSockets = Infinity;
    postError(target, fault, "Uncaught Exception ").finally(() => process.exit(128 + 1));
  };
}

async function main() {
  setUpConsole();
  // Set here: a node that starts with it warns that there is no such file.
  if (/nodejs1[68]/.test(process.env.AWS_EXECUTION_ENV)) process.env.NODE_EXTRA_CA_CERTS ??= "/var/runtime/ca-cert.pem";
  process.on("uncaughtException", endWith("Runtime.UncaughtException"));
  process.on("unhandledRejection", endWith("Runtime.UnhandledPromiseRejection"));
  let handler;
  try {
    handler = await loadHandler(process.env._HANDLER);
  } catch (error) {
    await postError("/init/error", error, "Uncaught Exception ");
    process.exit(1);
  }
  for (;;) await serveOne(handler);
}

main();
