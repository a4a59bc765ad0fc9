"""A function in JavaScript: AWS's runtime client for Node serves in an image.

The client's package is taken as it is published, but for one file: `rapid-client.node`, its HTTP requests in C++, takes
cmake, libtool and 100 s of processor time to build. A folder of that name has the same four requests in JavaScript.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import containers
from tests.emulator.aws.sandboxes.containers.test_functions import invoke

pytestmark = pytest.mark.timeout(240)
# The last one for Node 20 and older.
CLIENT = "aws-lambda-ric@3.3.0"
NOT_COPIED = ("libc.", "libm.", "libdl.", "libpthread.", "librt.", "ld-linux")
REQUESTS = r"""
const http = require("http");
const [hostname, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
let posted = Promise.resolve();
function request(method, path, body, headers) {
  return new Promise((resolve, reject) => {
    const options = { hostname, port, method, path: `/2018-06-01/runtime/invocation/${path}`, headers };
    http.request(options, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => resolve({ bodyJson: Buffer.concat(parts).toString(), headers: answer.headers }));
    }).on("error", reject).end(body);
  });
}
const type = { "Content-Type": "application/json" };
exports.next = () => posted.then(() => request("GET", "next", undefined, {}));
exports.done = (id, body) => { posted = request("POST", `${id}/response`, body, type); };
exports.error = (id, body) => { posted = request("POST", `${id}/error`, body, type); };
exports.initializeClient = () => {};
"""
HANDLER = """
let calls = 0;
exports.handler = async (event, context) => {
  calls += 1;
  if (event.fail) throw new TypeError("as the event asks");
  console.log("node got", JSON.stringify(event));
  return { calls, event, left: context.getRemainingTimeInMillis() > 0, request: context.awsRequestId.length };
};
"""


def node_image(folder: Path) -> str:
    """Return the image; skip where there is no Node or its package cannot be had."""
    containers.daemon()
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: apt-get install nodejs npm")
    packed = subprocess.run([npm, "pack", "--silent", CLIENT], cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode != 0:
        pytest.skip(f"npm cannot download {CLIENT}: {packed.stderr.strip().splitlines()[-1]}")
    subprocess.run(["tar", "-xf", packed.stdout.strip(), "package/dist", "package/bin"], cwd=folder, check=True)
    files: dict[str, str | bytes] = {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("package/*/*.mjs")
    }
    files["package/dist/rapid-client.node/index.js"] = REQUESTS
    files["task/index.js"] = HANDLER
    files["node"] = Path(node).read_bytes()
    for line in subprocess.run(["ldd", node], capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, found = line.strip().partition(" => ")
        if found.startswith("/") and not name.startswith(NOT_COPIED):
            files[f"lib/{name}"] = Path(found.split()[0]).read_bytes()
    dockerfile = f"""
        FROM {containers.BASE_IMAGE}
        COPY lib/ /usr/local/lib/
        COPY node /usr/local/bin/node
        RUN ldconfig
        COPY package/ /srv/aws-lambda-ric/
        COPY task/ /var/task/
        WORKDIR /var/task
        ENTRYPOINT ["node", "/srv/aws-lambda-ric/bin/index.mjs"]
        CMD ["index.handler"]
    """
    return containers.build("fmi-test-node", dockerfile, files)


def test_awss_node_client_serves_in_an_image(functions: Any, deploy_image: Callable[..., str], tmp_path: Path) -> None:
    name = deploy_image(node_image(tmp_path))
    for calls in (1, 2):
        payload, log, report = invoke(functions, name, {"number": calls})
        assert payload == {"calls": calls, "event": {"number": calls}, "left": True, "request": 36}
        assert f'node got {{"number":{calls}}}' in log
        assert (report.init_ms is None) == (calls > 1)
    failed, log, _ = invoke(functions, name, {"fail": True})
    assert (failed["errorType"], failed["errorMessage"]) == ("TypeError", "as the event asks")
    assert "TypeError" in log
    answer = functions.invoke(FunctionName=name, Payload=json.dumps({}).encode())
    assert json.loads(answer["Payload"].read())["calls"] == 4
