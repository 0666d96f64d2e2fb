// A journal over PostgreSQL, in JavaScript: `continuum-conformance check --exec "node postgres.mjs"`.
//
// Every operation is one transaction that locks the run's row first, so that all that it decides stays true until it
// commits. A handle is a pool of one connection. What the server's clock says is asked after the lock is held.

import { pathToFileURL } from 'node:url';

import pg from 'pg';

import { serve } from './bridge.mjs';
import {
  checkDurable, checkEvent, checkKey, checkLease, checkName, checkSnapshot, checkToken, checkTtl, JournalError, refuse,
} from './contract.mjs';
import { canonical, Encoded, encode, Lease, Run } from './terms.mjs';

// Terms are JSON text: jsonb would sort keys, and refuse U+0000.
const SCHEMA = `
  SELECT pg_advisory_xact_lock(7265726);
  CREATE TABLE IF NOT EXISTS js_runs (
    instance text COLLATE "C", run_id text COLLATE "C",
    workflow text NOT NULL, state text NOT NULL, input text NOT NULL, result text, error text,
    events bigint NOT NULL DEFAULT 0,
    owner text COLLATE "C", token numeric, last_token numeric NOT NULL DEFAULT 0, expires_at timestamptz,
    PRIMARY KEY (instance, run_id));
  CREATE TABLE IF NOT EXISTS js_events (
    instance text COLLATE "C", run_id text COLLATE "C", seq bigint, event text NOT NULL,
    PRIMARY KEY (instance, run_id, seq));
  CREATE TABLE IF NOT EXISTS js_snapshots (
    instance text COLLATE "C", run_id text COLLATE "C", seq bigint, snapshot text NOT NULL, meaning text NOT NULL,
    PRIMARY KEY (instance, run_id, seq));
`;

const AGAIN = new Set(['40001', '40P01']); // a serialization failure, a deadlock: nothing has happened
const GAVE_UP = new Set(['57014', '55P03', '25P03']); // a time-out of the server's ended a wait
const ATTEMPTS = 20;

const kept = (term) => JSON.stringify(encode(term));
const given = (json) => (json === null ? null : new Encoded(json));

export class PostgresJournal {
  constructor(dsn) {
    this.pool = new pg.Pool({ connectionString: dsn, max: 1 });
    this.pool.on('error', () => {}); // an idle connection was lost: the pool makes another one
    // And one that is lost in use: without this it would end the whole process, beside failing its query.
    this.pool.on('connect', (client) => client.on('error', () => {}));
  }

  async prepare() {
    // One transaction: statements in one string are.
    await this.pool.query(SCHEMA);
    return this;
  }

  close() {
    return this.pool.end();
  }

  // -- runs --

  async start_run(instance, runId, workflow, input) {
    checkKey(instance, runId);
    checkName(workflow, 'the workflow');
    checkDurable(input, 'input');
    return this.transaction(async (query) => {
      const { rowCount } = await query(
        `INSERT INTO js_runs (instance, run_id, workflow, state, input) VALUES ($1, $2, $3, 'running', $4)
         ON CONFLICT DO NOTHING`,
        [instance.name, runId, workflow, kept(input)]);
      if (rowCount === 0) refuse('RunAlreadyExists', `the run ${runId} exists already`);
      return null;
    });
  }

  async get_run(instance, runId) {
    checkKey(instance, runId);
    const { rows: [run] } = await this.read(
      'SELECT workflow, state, input, result, error FROM js_runs WHERE instance = $1 AND run_id = $2',
      [instance.name, runId]);
    if (run === undefined) return null;
    return new Run(runId, run.workflow, run.state, given(run.input), given(run.result), given(run.error));
  }

  async append(instance, runId, event, token) {
    checkKey(instance, runId);
    checkToken(token);
    const seq = checkEvent(event);
    return this.transaction(async (query) => {
      const run = await this.active(query, instance, runId);
      this.fence(run, token);
      const next = BigInt(run.events);
      if (seq !== null && seq !== next) refuse('SequenceConflict', `seq ${seq} was given, ${next} is next`);
      await query('INSERT INTO js_events VALUES ($1, $2, $3, $4)',
        [instance.name, runId, next, kept(new Map(event).set('seq', next))]);
      await query('UPDATE js_runs SET events = events + 1 WHERE instance = $1 AND run_id = $2', [instance.name, runId]);
      return null;
    });
  }

  async load(instance, runId) {
    checkKey(instance, runId);
    const { rows } = await this.read(
      'SELECT event FROM js_events WHERE instance = $1 AND run_id = $2 ORDER BY seq', [instance.name, runId]);
    return rows.map((row) => given(row.event));
  }

  async load_with_snapshot(instance, runId, token) {
    checkKey(instance, runId);
    checkToken(token);
    return this.transaction(async (query) => {
      // Under the lock nobody appends or takes a snapshot, so both reads are of one moment.
      const run = await this.locked(query, instance, runId);
      this.fence(run, token);
      const { rows: [latest] } = await query(
        'SELECT seq, snapshot FROM js_snapshots WHERE instance = $1 AND run_id = $2 ORDER BY seq DESC LIMIT 1',
        [instance.name, runId]);
      const { rows } = await query(
        'SELECT event FROM js_events WHERE instance = $1 AND run_id = $2 AND seq > $3 ORDER BY seq',
        [instance.name, runId, latest?.seq ?? -1]);
      return [latest === undefined ? null : given(latest.snapshot), rows.map((row) => given(row.event))];
    });
  }

  async take_snapshot(instance, snapshot) {
    checkSnapshot(snapshot);
    checkKey(instance, snapshot.run_id);
    const { run_id: runId, through_seq: seq } = snapshot;
    const meaning = canonical([encode(snapshot.version_hash), encode(snapshot.steps_by_seq)]);
    return this.transaction(async (query) => {
      const run = await this.locked(query, instance, runId);
      if (seq < 0n || seq >= BigInt(run.events)) refuse('SnapshotConflict', `${seq} is no seq of the history`);
      const { rows: [first] } = await query(
        'SELECT meaning FROM js_snapshots WHERE instance = $1 AND run_id = $2 AND seq = $3', [instance.name, runId, seq]);
      if (first === undefined) {
        await query('INSERT INTO js_snapshots VALUES ($1, $2, $3, $4, $5)',
          [instance.name, runId, seq, kept(snapshot), meaning]);
      } else if (first.meaning !== meaning) {
        refuse('SnapshotConflict', `there is another snapshot for ${seq}`);
      }
      return null;
    });
  }

  async suspend(instance, runId, token) {
    checkKey(instance, runId);
    checkToken(token);
    return this.transaction(async (query) => {
      this.fence(await this.active(query, instance, runId), token);
      await query("UPDATE js_runs SET state = 'suspended' WHERE instance = $1 AND run_id = $2", [instance.name, runId]);
      return null;
    });
  }

  complete(instance, runId, result, token) {
    return this.finish(instance, runId, token, 'completed', 'result', result);
  }

  fail(instance, runId, error, token) {
    return this.finish(instance, runId, token, 'failed', 'error', error);
  }

  async finish(instance, runId, token, state, column, term) {
    checkKey(instance, runId);
    checkToken(token);
    checkDurable(term, column);
    return this.transaction(async (query) => {
      this.fence(await this.active(query, instance, runId), token);
      await query(
        `UPDATE js_runs SET state = $3, ${column} = $4, owner = NULL, token = NULL, expires_at = NULL
         WHERE instance = $1 AND run_id = $2`,
        [instance.name, runId, state, kept(term)]);
      return null;
    });
  }

  // -- leases --

  async acquire(instance, runId, owner, ttl) {
    checkKey(instance, runId);
    checkName(owner, 'the owner');
    const seconds = checkTtl(ttl);
    return this.transaction(async (query) => {
      const run = await this.active(query, instance, runId);
      // Whether it has expired is asked now, with the lock held.
      const { rows: [{ token }] } = await query(
        `UPDATE js_runs SET owner = $3, token = last_token + 1, last_token = last_token + 1, expires_at = ${EXPIRY('$4')}
         WHERE instance = $1 AND run_id = $2 AND (token IS NULL OR expires_at <= clock_timestamp()) RETURNING token`,
        [instance.name, runId, owner, seconds]).then(({ rows }) =>
          rows.length ? { rows } : refuse('LeaseHeld', `${run.owner} holds the run`));
      return new Lease(runId, owner, BigInt(token));
    });
  }

  async renew(instance, lease, ttl) {
    checkLease(lease);
    checkKey(instance, lease.run_id);
    const seconds = checkTtl(ttl);
    return this.transaction(async (query) => {
      await this.held(query, instance, lease);
      await query(`UPDATE js_runs SET expires_at = ${EXPIRY('$3')} WHERE instance = $1 AND run_id = $2`,
        [instance.name, lease.run_id, seconds]);
      return null;
    });
  }

  async release(instance, lease) {
    checkLease(lease);
    checkKey(instance, lease.run_id);
    return this.transaction(async (query) => {
      await this.held(query, instance, lease);
      await query('UPDATE js_runs SET owner = NULL, token = NULL, expires_at = NULL WHERE instance = $1 AND run_id = $2',
        [instance.name, lease.run_id]);
      return null;
    });
  }

  // -- what the operations have in common --

  async locked(query, instance, runId) {
    const { rows: [run] } = await query(
      'SELECT state, events, owner, token FROM js_runs WHERE instance = $1 AND run_id = $2 FOR UPDATE',
      [instance.name, runId]);
    return run ?? refuse('RunNotFound', `there is no run ${runId}`);
  }

  async active(query, instance, runId) {
    const run = await this.locked(query, instance, runId);
    if (run.state === 'completed' || run.state === 'failed') refuse('RunNotActive', `the run is ${run.state}`);
    return run;
  }

  // An expired lease that nobody took still counts (FEN-3).
  fence(run, token) {
    if ((run.token === null ? null : BigInt(run.token)) !== token) refuse('LeaseMismatch', `the token ${token} is not the run's`);
  }

  async held(query, instance, lease) {
    const run = await this.active(query, instance, lease.run_id);
    if (run.token === null || BigInt(run.token) !== lease.token || run.owner !== lease.owner) {
      refuse('LeaseLost', 'the lease is another one');
    }
  }

  // -- connections --

  // A read changes nothing, so it is tried again on a new connection.
  async read(text, values) {
    return this.attempts(async () => {
      const client = await this.pool.connect();
      let lost = true;
      try {
        const found = await client.query(text, values);
        lost = false;
        return found;
      } finally {
        client.release(lost);
      }
    });
  }

  async transaction(work) {
    return this.attempts(async (sent) => {
      const client = await this.pool.connect();
      let lost = true;
      try {
        await client.query('BEGIN');
        try {
          const found = await work((text, values) => client.query(text, values));
          sent.commit = true;
          await client.query('COMMIT');
          lost = false;
          return found;
        } catch (error) {
          if (error instanceof JournalError || answered(error)) {
            sent.commit = false; // the server is there, and has said no
            await client.query('ROLLBACK');
            lost = false;
          }
          throw error;
        }
      } finally {
        client.release(lost);
      }
    });
  }

  async attempts(attempt) {
    for (let number = 1; ; number++) {
      const sent = { commit: false };
      try {
        return await attempt(sent);
      } catch (error) {
        if (error instanceof JournalError) throw error;
        if (sent.commit) {
          refuse('JournalUnavailable', `the connection was lost while committing: ${error.message}`, { unknown: true });
        }
        const contended = AGAIN.has(error.code);
        if (answered(error) && GAVE_UP.has(error.code)) refuse('JournalUnavailable', error.message);
        if (answered(error) && !contended) throw error;
        if (number >= (contended ? ATTEMPTS : 3)) refuse('JournalUnavailable', error.message);
      }
    }
  }
}

// Whether the server has answered with an error, and the connection lives on.
function answered(error) {
  return error instanceof pg.DatabaseError && !['FATAL', 'PANIC'].includes(error.severity);
}

// A ttl of 0 is over at once, whatever the clock says.
function EXPIRY(seconds) {
  return `CASE WHEN ${seconds}::float8 > 0 THEN clock_timestamp() + make_interval(secs => ${seconds}::float8)
          ELSE '-infinity' END`;
}

export function servePostgres(Journal = PostgresJournal) {
  serve({
    name: Journal.name,
    capabilities: ['leases', 'snapshots', 'durable', 'crash_safe', 'shared', 'opaque_run_ids'],
    needs: ['postgres'],
    tables: ['js_runs', 'js_events', 'js_snapshots'],
    open: ({ dsn }) => new Journal(dsn).prepare(),
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) servePostgres();
