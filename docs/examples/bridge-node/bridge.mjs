// The bridge: requests in JSON Lines on standard input, replies on standard output. See docs/bridge.md.
//
//   serve({ name, capabilities, needs, tables, open })
//
// `open({ worker, number, dsn, directory })` gives a journal: an object with the contract's operations as methods, and
// `close()`. Methods may be async. Their arguments are decoded (terms.mjs), and so may be what they give.

import { createInterface } from 'node:readline';

import { JournalError } from './contract.mjs';
import { decode, encode } from './terms.mjs';

const PROTOCOL = 1;

// The operations, with their arguments in the order in which methods take them.
const OPERATIONS = {
  start_run: ['instance', 'run_id', 'workflow', 'input'],
  append: ['instance', 'run_id', 'event', 'lease_token'],
  load: ['instance', 'run_id'],
  load_with_snapshot: ['instance', 'run_id', 'lease_token'],
  take_snapshot: ['instance', 'snapshot'],
  suspend: ['instance', 'run_id', 'lease_token'],
  complete: ['instance', 'run_id', 'result', 'lease_token'],
  fail: ['instance', 'run_id', 'error', 'lease_token'],
  get_run: ['instance', 'run_id'],
  acquire: ['instance', 'run_id', 'owner', 'ttl'],
  renew: ['instance', 'lease', 'ttl'],
  release: ['instance', 'lease'],
};

export function serve(adapter) {
  const handles = new Map();
  let last = 0;

  // Nothing but replies may go to standard output.
  console.log = console.info = console.debug = console.error;

  async function answer({ op, handle, args }) {
    if (op === 'hello') {
      return {
        protocol: PROTOCOL,
        name: adapter.name,
        language: `JavaScript (Node ${process.versions.node})`,
        contract: adapter.contract ?? '0.4',
        capabilities: adapter.capabilities,
        needs: adapter.needs ?? [],
        tables: adapter.tables ?? [],
      };
    }
    if (op === 'open') {
      // What open carries goes before the environment.
      const dsn = args.dsn ?? process.env.JOURNAL_DSN;
      const directory = args.directory ?? process.env.JOURNAL_DIRECTORY;
      const journal = await adapter.open({ ...args, dsn, directory });
      handles.set(++last, journal);
      return last;
    }
    if (op === 'bye') return null;
    const journal = handles.get(handle);
    if (journal === undefined) throw new Error(`there is no handle ${handle}`);
    if (op === 'close') {
      handles.delete(handle);
      await journal.close?.();
      return null;
    }
    if (!(op in OPERATIONS) || typeof journal[op] !== 'function') {
      throw new JournalError('NotImplementedError', `this journal has no ${op}`);
    }
    return encode(await journal[op](...OPERATIONS[op].map((name) => decode(args[name]))));
  }

  function reply(id, data, then) {
    process.stdout.write(`${JSON.stringify({ id, ...data })}\n`, then);
  }

  function failure(error) {
    if (error instanceof JournalError) {
      const { name, message, path, unknown } = error;
      return { kind: 'error', error: name, message, path, unknown };
    }
    // Not of the contract: the kit shows it as it is, and counts it against the adapter.
    return { kind: 'raw', error: error?.name ?? 'Error', message: String(error?.message ?? error), detail: error?.stack };
  }

  // Requests to different handles are carried out side by side: nobody waits here for an answer.
  createInterface({ input: process.stdin, crlfDelay: Infinity, terminal: false })
    .on('line', (line) => {
      const request = JSON.parse(line);
      answer(request).then(
        (value) => reply(request.id, { kind: 'value', value }, request.op === 'bye' ? () => process.exit(0) : undefined),
        (error) => reply(request.id, failure(error)),
      );
    })
    .on('close', () => process.exit(0));
}
