// Versions of the example in memory that are wrong on purpose: `node wrong_memory.mjs NAME`.

import { MemoryJournal, serveMemory } from '../../docs/examples/bridge-node/memory.mjs';
import { refuse } from '../../docs/examples/bridge-node/contract.mjs';

const WRONG = {
  // None switches the check off.
  lets_none_pass: class extends MemoryJournal {
    fence(run, token) {
      if (token !== null) super.fence(run, token);
    }
  },

  // A terminal run can be started again.
  resurrects: class extends MemoryJournal {
    start_run(instance, runId, ...rest) {
      const key = this.key(instance, runId);
      if (['completed', 'failed'].includes(this.store.runs.get(key)?.state)) this.store.runs.delete(key);
      return super.start_run(instance, runId, ...rest);
    }
  },

  // The usual mistake in JavaScript: 1.0 and 1 are one number.
  forgets_floats: class extends MemoryJournal {
    start_run(instance, runId, workflow, input) {
      const plain = typeof input === 'number' && Number.isInteger(input) ? BigInt(input) : input;
      return super.start_run(instance, runId, workflow, plain);
    }
  },

  // Two instances share a run id.
  joins_keys: class extends MemoryJournal {
    key(instance, runId) {
      return `${instance.name}:${runId}`.toLowerCase();
    }
  },

  // A line of a log among the replies.
  logs: class extends MemoryJournal {
    get_run(instance, runId) {
      process.stdout.write(`get_run ${runId}\n`);
      return super.get_run(instance, runId);
    }
  },

  // An error that is none of the contract's.
  throws: class extends MemoryJournal {
    known(instance, runId) {
      const run = this.store.runs.get(this.key(instance, runId));
      return run ?? run.events ?? refuse('RunNotFound');
    }
  },

  // It never answers.
  hangs: class extends MemoryJournal {
    suspend() {
      return new Promise(() => {});
    }
  },

  // An operation at once, and the process is gone.
  exits: class extends MemoryJournal {
    complete(...all) {
      if (all[2] === 1n || all[2]?.size) {
        console.error('out of memory');
        process.exit(3);
      }
      return super.complete(...all);
    }
  },
};

const Journal = WRONG[process.argv[2]];
if (Journal === undefined) throw new Error(`there is ${Object.keys(WRONG).join(', ')}`);
serveMemory(Journal);
