// The journal of memory.mjs as it was at first, for the guide: two things are not there yet, and expected.txt says so.

import { checkKey, checkSnapshot } from './contract.mjs';
import { MemoryJournal, serveMemory } from './memory.mjs';

class EarlyJournal extends MemoryJournal {
  // A terminal run can be started again.
  start_run(instance, runId, ...rest) {
    checkKey(instance, runId);
    const run = this.store.runs.get(this.key(instance, runId));
    if (run?.state === 'completed' || run?.state === 'failed') this.store.runs.delete(this.key(instance, runId));
    return super.start_run(instance, runId, ...rest);
  }

  // A second snapshot overwrites the first.
  take_snapshot(instance, snapshot) {
    checkSnapshot(snapshot);
    checkKey(instance, snapshot.run_id);
    this.store.runs.get(this.key(instance, snapshot.run_id))?.snapshots.delete(snapshot.through_seq);
    return super.take_snapshot(instance, snapshot);
  }
}

serveMemory(EarlyJournal);
