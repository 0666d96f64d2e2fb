// The journal of memory.mjs as it was at first, for the guide: three things are not there yet, and expected.txt says so.

import { checkKey, checkSnapshot } from './contract.mjs';
import { MemoryJournal, serveMemory } from './memory.mjs';

class EarlyJournal extends MemoryJournal {
  // A finished run can be started again.
  start_run(instance, runId, ...rest) {
    checkKey(instance, runId);
    const run = this.store.runs.get(this.key(instance, runId));
    if (run?.state === 'completed' || run?.state === 'failed') this.store.runs.delete(this.key(instance, runId));
    return super.start_run(instance, runId, ...rest);
  }

  // A snapshot of an unknown run is dropped without a word.
  take_snapshot(instance, snapshot) {
    checkSnapshot(snapshot);
    checkKey(instance, snapshot.run_id);
    if (!this.store.runs.has(this.key(instance, snapshot.run_id))) return null;
    return super.take_snapshot(instance, snapshot);
  }

  // A ttl without end is an hour.
  acquire(instance, runId, owner, ttl) {
    return super.acquire(instance, runId, owner, ttl === Infinity ? 3600 : ttl);
  }
}

serveMemory(EarlyJournal);
