// A journal in memory, in JavaScript: `continuum-conformance check --exec "node memory.mjs"`.
//
// One process holds one store, and all handles share it. Terms are kept as encoded JSON, so that nobody can change
// them afterwards.

import { pathToFileURL } from 'node:url';

import { serve } from './bridge.mjs';
import {
  checkDurable, checkEvent, checkKey, checkLease, checkName, checkSnapshot, checkToken, checkTtl, refuse,
} from './contract.mjs';
import { canonical, Encoded, encode, Lease, Run } from './terms.mjs';

const kept = (term) => JSON.stringify(encode(term));
const given = (json) => (json === null ? null : new Encoded(json));

export class Store {
  runs = new Map();
}

export class MemoryJournal {
  constructor(store) {
    this.store = store;
  }

  start_run(instance, runId, workflow, input) {
    checkKey(instance, runId);
    checkName(workflow, 'the workflow');
    checkDurable(input, 'input');
    const key = this.key(instance, runId);
    if (this.store.runs.has(key)) refuse('RunAlreadyExists', `the run ${runId} exists already`);
    this.store.runs.set(key, {
      runId, workflow, input: kept(input), state: 'running', result: null, error: null,
      events: [], snapshots: new Map(), lease: null, lastToken: 0n,
    });
    return null;
  }

  get_run(instance, runId) {
    checkKey(instance, runId);
    const run = this.store.runs.get(this.key(instance, runId));
    if (run === undefined) return null;
    return new Run(runId, run.workflow, run.state, given(run.input), given(run.result), given(run.error));
  }

  append(instance, runId, event, token) {
    checkKey(instance, runId);
    checkToken(token);
    const seq = checkEvent(event);
    const run = this.active(instance, runId);
    this.fence(run, token);
    const next = BigInt(run.events.length);
    if (seq !== null && seq !== next) refuse('SequenceConflict', `seq ${seq} was given, ${next} is next`);
    run.events.push(kept(new Map(event).set('seq', next)));
    return null;
  }

  load(instance, runId) {
    checkKey(instance, runId);
    const run = this.store.runs.get(this.key(instance, runId));
    return run === undefined ? [] : run.events.map(given);
  }

  load_with_snapshot(instance, runId, token) {
    checkKey(instance, runId);
    checkToken(token);
    const run = this.known(instance, runId);
    this.fence(run, token);
    const latest = [...run.snapshots.keys()].reduce((a, b) => (a > b ? a : b), -1n);
    const events = run.events.slice(Number(latest) + 1).map(given);
    return [latest < 0n ? null : given(run.snapshots.get(latest).json), events];
  }

  take_snapshot(instance, snapshot) {
    checkSnapshot(snapshot);
    checkKey(instance, snapshot.run_id);
    const run = this.known(instance, snapshot.run_id);
    const { through_seq: seq } = snapshot;
    if (seq < 0n || seq >= BigInt(run.events.length)) refuse('SnapshotConflict', `${seq} is no seq of the history`);
    const meaning = canonical([encode(snapshot.version_hash), encode(snapshot.steps_by_seq)]);
    const first = run.snapshots.get(seq);
    if (first !== undefined && first.meaning !== meaning) refuse('SnapshotConflict', `there is another snapshot for ${seq}`);
    if (first === undefined) run.snapshots.set(seq, { json: kept(snapshot), meaning });
    return null;
  }

  suspend(instance, runId, token) {
    checkKey(instance, runId);
    checkToken(token);
    const run = this.active(instance, runId);
    this.fence(run, token);
    run.state = 'suspended';
    return null;
  }

  complete(instance, runId, result, token) {
    return this.finish(instance, runId, token, 'completed', 'result', result);
  }

  fail(instance, runId, error, token) {
    return this.finish(instance, runId, token, 'failed', 'error', error);
  }

  finish(instance, runId, token, state, what, term) {
    checkKey(instance, runId);
    checkToken(token);
    checkDurable(term, what);
    const run = this.active(instance, runId);
    this.fence(run, token);
    Object.assign(run, { state, [what]: kept(term), lease: null });
    return null;
  }

  acquire(instance, runId, owner, ttl) {
    checkKey(instance, runId);
    checkName(owner, 'the owner');
    const seconds = checkTtl(ttl);
    const run = this.active(instance, runId);
    if (run.lease !== null && !this.expired(run.lease)) refuse('LeaseHeld', `${run.lease.owner} holds the run`);
    run.lastToken += 1n;
    run.lease = { owner, token: run.lastToken, expires: this.expiry(seconds) };
    return new Lease(runId, owner, run.lastToken);
  }

  renew(instance, lease, ttl) {
    checkLease(lease);
    checkKey(instance, lease.run_id);
    const seconds = checkTtl(ttl);
    this.held(instance, lease).lease.expires = this.expiry(seconds);
    return null;
  }

  release(instance, lease) {
    checkLease(lease);
    checkKey(instance, lease.run_id);
    this.held(instance, lease).lease = null;
    return null;
  }

  // -- what the operations have in common --

  key(instance, runId) {
    return JSON.stringify([instance.name, runId]);
  }

  known(instance, runId) {
    return this.store.runs.get(this.key(instance, runId)) ?? refuse('RunNotFound', `there is no run ${runId}`);
  }

  active(instance, runId) {
    const run = this.known(instance, runId);
    if (run.state === 'completed' || run.state === 'failed') refuse('RunNotActive', `the run is ${run.state}`);
    return run;
  }

  // An expired lease that nobody took still counts (FEN-3).
  fence(run, token) {
    if ((run.lease?.token ?? null) !== token) refuse('LeaseMismatch', `the token ${token} is not the run's`);
  }

  held(instance, lease) {
    const run = this.active(instance, lease.run_id);
    if (run.lease?.token !== lease.token || run.lease.owner !== lease.owner) refuse('LeaseLost', 'the lease is another one');
    return run;
  }

  // A ttl of 0 is over at once, whatever the clock says.
  expiry(seconds) {
    return seconds > 0 ? performance.now() + seconds * 1000 : -Infinity;
  }

  expired(lease) {
    return lease.expires <= performance.now();
  }
}

export function serveMemory(Journal = MemoryJournal) {
  const store = new Store();
  serve({
    name: Journal.name,
    capabilities: ['leases', 'snapshots', 'opaque_run_ids'],
    open: () => new Journal(store),
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) serveMemory();
