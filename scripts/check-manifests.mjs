// Holds Kubernetes manifests against the types of their API, as `kubectl apply` would: node check-manifests.mjs DIR <list.json
// DIR has the packages that scripts/setup.d/crd-schemas installs. One line a fault; none is good.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** The folder of the package that has the types of this API group. */
function folderOf(group) {
  const models = join(process.argv[2], "node_modules");
  const packages = readFileSync(join(process.argv[2], "groups"), "utf8").trim().split("\n").map((line) => line.split(" "));
  const found = packages.find(([suffix]) => group === suffix || group.endsWith("." + suffix));
  return found ? join(models, found[1]) : join(models, "kubernetes-models");
}

/** The function that checks an object of this kind. */
async function checkOf(apiVersion, kind) {
  const [group] = apiVersion.includes("/") ? apiVersion.split("/") : ["core"];
  const model = join(folderOf(group), apiVersion, `${kind}.js`);
  if (!existsSync(model)) throw new Error(`no type ${apiVersion} ${kind} in the installed packages`);
  const [, schema] = readFileSync(model, "utf8").match(/(_schemas\/\w+\.js)/) ?? [];
  return (await import(pathToFileURL(join(folderOf(group), schema)))).validate;
}

/**
 * The types do not say that other members are refused, as the API server does. But a check never looks at a member it
 * does not know, so whatever it has not looked at, in an object where it has looked at something, is unknown.
 */
function watched(value, path, unread) {
  if (value === null || typeof value !== "object") return value;
  const read = new Set();
  if (!Array.isArray(value)) {
    unread.push(() => (read.size ? Object.keys(value).filter((key) => !read.has(key)).map((key) => `${path}/${key}`) : []));
  }
  const seen = new Map();
  return new Proxy(value, {
    get(target, key) {
      read.add(key);
      if (!seen.has(key)) seen.set(key, watched(target[key], `${path}/${String(key)}`, unread));
      return seen.get(key);
    },
  });
}

let faults = 0;
for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${manifest.kind} ${manifest.metadata?.name}`;
  const unread = [];
  const check = await checkOf(manifest.apiVersion, manifest.kind);
  const good = check(watched(manifest, "", unread));
  const lines = (good ? [] : check.errors).map((fault) => `${fault.instancePath}: ${fault.keyword} ${JSON.stringify(fault.params)}`);
  lines.push(...unread.flatMap((left) => left()).map((path) => `${path}: unknown field`));
  for (const line of lines) console.log(`${name}: ${line}`);
  faults += lines.length;
}
process.exitCode = faults ? 1 : 0;
