// Laws of files with secrets: where they may be, who may read them, and that nothing else is ever removed.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";

import { fitVariables, privateFolder, removeFolder, writeFiles } from "../../action/expose.mjs";

const scratch = () => fs.mkdtempSync(path.join(os.tmpdir(), "files-test-"));

test("a folder is never in the workspace, whatever the runner's own is", () => {
  const root = scratch();
  const inside = path.join(root, "work", "_temp");
  const outside = path.join(root, "elsewhere");
  fs.mkdirSync(inside, { recursive: true });
  fs.mkdirSync(outside);
  // /dev/shm is in this workspace, so that memory is out of the question.
  const made = privateFolder({ GITHUB_WORKSPACE: "/dev", RUNNER_TEMP: outside });
  assert.equal(path.dirname(made), fs.realpathSync(outside));
  assert.equal(fs.statSync(made).mode & 0o777, 0o700);
  removeFolder(made);
  assert.ok(!fs.existsSync(made));

  const link = path.join(root, "link");
  fs.symlinkSync(inside, link);
  for (const temp of [inside, link, path.join(root, "work"), "", "/nowhere"]) {
    const environment = { GITHUB_WORKSPACE: path.join(root, "work"), RUNNER_TEMP: temp };
    // Only where memory is no place, either: elsewhere the folder is there.
    if (temp !== "" && fs.existsSync("/dev/shm")) {
      const folder = privateFolder(environment);
      assert.ok(!folder.startsWith(root), folder);
      removeFolder(folder);
    }
    assert.throws(() => privateFolder({ GITHUB_WORKSPACE: "/", RUNNER_TEMP: temp }), /no place for files/);
  }
  fs.rmSync(root, { recursive: true });
});

test("a file is its owner's alone and never written over another", () => {
  const root = scratch();
  const [written] = writeFiles(root, [{ variable: "KEY", value: "line\r\n🔑\0end" }]);
  assert.equal(written.variable, "KEY");
  assert.equal(fs.readFileSync(written.value, "utf8"), "line\r\n🔑\0end");
  assert.equal(fs.statSync(written.value).mode & 0o777, 0o600);
  assert.throws(() => writeFiles(root, [{ variable: "KEY", value: "x" }]), /EEXIST/);
  fs.symlinkSync("/dev/null", path.join(root, "LINK"));
  assert.throws(() => writeFiles(root, [{ variable: "LINK", value: "x" }]), /EEXIST/);
  fs.rmSync(root, { recursive: true });
});

test("nothing is removed but a folder of this action", () => {
  const root = scratch();
  for (const name of [root, `${root}/.`, "hallpass-action-relative", ""]) {
    removeFolder(name);
  }
  assert.ok(fs.existsSync(root));
  fs.rmSync(root, { recursive: true });
});

test("what no variable can hold is said", () => {
  assert.throws(() => fitVariables([{ variable: "A", value: "x\0y" }]), /zero byte/);
  fitVariables([{ variable: "A", value: "x\ny" }]);
});
