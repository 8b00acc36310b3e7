// The data blocks of this page: base64 of gzip, read when they are needed.

function blockNode(name) {
  return byId(`block-${name}`);
}

// Blocks after the script may not have been parsed yet.
async function awaitBlock(name) {
  if (!blockNode(name) && document.readyState === "loading") {
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));
  }
  const node = blockNode(name);
  if (!node) throw new Error(`This page has no data block ${name}.`);
  return node;
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function unpack(name) {
  const node = await awaitBlock(name);
  const stream = new Blob([bytesOf(node.textContent)]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip")));
}

async function readText(name) {
  return (await unpack(name)).text();
}

const read = new Map();

// The same promise for everyone who asks for a block.
function readBlock(name) {
  if (!read.has(name))
    read.set(
      name,
      unpack(name).then((response) => response.json()),
    );
  return read.get(name);
}

// What several parts of the page look at together; a part is told what changed.
function makeStore(state) {
  const listeners = [];
  return {
    state,
    on(listener) {
      listeners.push(listener);
    },
    set(changes) {
      const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
      if (!changed.length) return;
      Object.assign(state, changes);
      for (const listener of listeners) listener(new Set(changed));
    },
  };
}
