// Versions of the example over PostgreSQL that are wrong on purpose: `node wrong_postgres.mjs NAME`.

import { checkKey, checkName, checkTtl, JournalError, refuse } from '../../docs/examples/bridge-node/contract.mjs';
import { PostgresJournal, servePostgres } from '../../docs/examples/bridge-node/postgres.mjs';
import { Lease } from '../../docs/examples/bridge-node/terms.mjs';

const RUN = 'SELECT state, events, owner, token FROM js_runs WHERE instance = $1 AND run_id = $2';

const WRONG = {
  // A race: the token is read before the row is locked, so whoever was fenced out meanwhile writes all the same.
  checks_then_locks: class extends PostgresJournal {
    async locked(query, instance, runId) {
      const { rows: [before] } = await query(RUN, [instance.name, runId]);
      const run = await super.locked(query, instance, runId);
      return { ...run, owner: before?.owner ?? null, token: before?.token ?? null };
    }
  },

  // A race: the next seq is read without a lock, and whoever comes second overwrites the other's event.
  counts_without_lock: class extends PostgresJournal {
    async locked(query, instance, runId) {
      const { rows: [run] } = await query(RUN, [instance.name, runId]);
      return run ?? refuse('RunNotFound', `there is no run ${runId}`);
    }

    transaction(work) {
      const upsert = 'ON CONFLICT (instance, run_id, seq) DO UPDATE SET event = excluded.event';
      return super.transaction((query) =>
        work((text, values) => query(text.startsWith('INSERT INTO js_events') ? `${text} ${upsert}` : text, values)));
    }
  },

  // A race: whether the lease is free is decided on what was read before the row was locked.
  grants_twice: class extends PostgresJournal {
    acquire(instance, runId, owner, ttl) {
      checkKey(instance, runId);
      checkName(owner, 'the owner');
      const seconds = checkTtl(ttl);
      return this.transaction(async (query) => {
        const { rows: [free] } = await query(
          `SELECT state IN ('completed', 'failed') AS over, token IS NULL OR expires_at <= clock_timestamp() AS free
           FROM js_runs WHERE instance = $1 AND run_id = $2`, [instance.name, runId]);
        if (free === undefined) refuse('RunNotFound', `there is no run ${runId}`);
        if (free.over) refuse('RunNotActive', 'the run is terminal');
        if (!free.free) refuse('LeaseHeld', 'the run is held');
        const { rows: [{ token }] } = await query(
          `UPDATE js_runs SET owner = $3, token = last_token + 1, last_token = last_token + 1,
           expires_at = CASE WHEN $4::float8 > 0 THEN clock_timestamp() + make_interval(secs => $4) ELSE '-infinity' END
           WHERE instance = $1 AND run_id = $2 RETURNING token`, [instance.name, runId, owner, seconds]);
        return new Lease(runId, owner, BigInt(token));
      });
    }
  },

  // A fault: whoever lost the connection while committing is told that nothing happened.
  is_sure: class extends PostgresJournal {
    async attempts(attempt) {
      try {
        return await super.attempts(attempt);
      } catch (error) {
        throw error instanceof JournalError ? Object.assign(error, { unknown: false }) : error;
      }
    }
  },

  // A fault: nobody listens to a connection that is lost in use, so Node ends the process.
  ends_with_its_connection: class extends PostgresJournal {
    constructor(dsn) {
      super(dsn);
      this.pool.removeAllListeners('connect');
    }
  },
};

const Journal = WRONG[process.argv[2]];
if (Journal === undefined) throw new Error(`there is ${Object.keys(WRONG).join(', ')}`);
servePostgres(Journal);
