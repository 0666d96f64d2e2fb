// Durable terms between the bridge's JSON and JavaScript, so that nothing is lost.
//
//   int    BigInt           list   Array
//   float  number           dict   Map, whose keys keep their order
//   bytes  Uint8Array       None, bool, text: null, boolean, string
//
// Tuples, sets, decimals and the other rich terms are not supported here: they become `Unsupported`, which the
// adapter refuses. (It does not declare `rich_terms`.)

export class Instance { constructor(name) { Object.assign(this, { name }); } }
export class Lease { constructor(run_id, owner, token) { Object.assign(this, { run_id, owner, token }); } }
export class DateTime { constructor(text, offset) { Object.assign(this, { text, offset }); } }
export class Unsupported { constructor(kind) { Object.assign(this, { kind }); } }

export class Run {
  constructor(run_id, workflow, state, input, result, error) {
    Object.assign(this, { run_id, workflow, state, input, result, error });
  }
}

export class Snapshot {
  constructor(run_id, through_seq, version_hash, taken_at, steps_by_seq) {
    Object.assign(this, { run_id, through_seq, version_hash, taken_at, steps_by_seq });
  }
}

// What has been encoded already, and is sent as it is.
export class Encoded { constructor(json) { Object.assign(this, { json }); } }

export function decode(data) {
  if (typeof data === 'number') return BigInt(data); // plain numbers are whole ones, within 53 bits
  if (Array.isArray(data)) return data.map(decode);
  if (data === null || typeof data !== 'object') return data;
  if (!Object.hasOwn(data, '$')) return new Map(Object.entries(data).map(([key, value]) => [key, decode(value)]));
  const value = data.v;
  switch (data.$) {
    case 'int': return value.startsWith('-') ? -BigInt(`0x${value.slice(1)}`) : BigInt(`0x${value}`);
    case 'float': return { nan: NaN, inf: Infinity, '-inf': -Infinity }[value] ?? Number(value);
    case 'bytes': return new Uint8Array(Buffer.from(value, 'base64'));
    case 'dict': return new Map(value.map(([key, item]) => [decode(key), decode(item)]));
    // Long repetitions and deep nests come written short.
    case 'repeat': return decode(value[0]).repeat(value[1]);
    case 'repeat-bytes': return new Uint8Array(value[1]).fill(value[0]);
    case 'nest': {
      let inner = decode(value[1]);
      for (let depth = 0; depth < value[0]; depth++) inner = [inner];
      return inner;
    }
    case 'datetime': return new DateTime(...value);
    case 'Instance': return new Instance(...value.map(decode));
    case 'Lease': return new Lease(...value.map(decode));
    case 'Snapshot': return new Snapshot(...value.map(decode));
    default: return new Unsupported(data.$);
  }
}

const tag = (name, value) => ({ $: name, v: value });

function float(value) {
  if (Object.is(value, -0)) return '-0.0';
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
}

export function encode(term) {
  if (term === undefined) return null;
  if (term === null || typeof term === 'boolean' || typeof term === 'string') return term;
  if (typeof term === 'bigint') {
    return -(2n ** 53n) < term && term < 2n ** 53n ? Number(term) : tag('int', term.toString(16));
  }
  if (typeof term === 'number') return tag('float', float(term));
  if (term instanceof Uint8Array) return tag('bytes', Buffer.from(term).toString('base64'));
  if (Array.isArray(term)) return term.map(encode);
  // Always as pairs: an object of JavaScript's moves keys like "1" to the front.
  if (term instanceof Map) return tag('dict', [...term].map(([key, value]) => [encode(key), encode(value)]));
  if (term instanceof Encoded) return JSON.parse(term.json);
  if (term instanceof DateTime) return tag('datetime', [term.text, term.offset]);
  if (term instanceof Lease) return tag('Lease', [term.run_id, term.owner, encode(term.token)]);
  if (term instanceof Run) {
    const { run_id, workflow, state, input, result, error } = term;
    return tag('Run', [run_id, workflow, state, encode(input), encode(result), encode(error)]);
  }
  if (term instanceof Snapshot) {
    const { run_id, through_seq, version_hash, taken_at, steps_by_seq } = term;
    return tag('Snapshot', [run_id, ...[through_seq, version_hash, taken_at, steps_by_seq].map(encode)]);
  }
  throw new TypeError(`${term} cannot be encoded`);
}

// A text that is the same for equal terms alone: keys in one order.
export function canonical(data) {
  return JSON.stringify(data, (_, value) =>
    value !== null && typeof value === 'object' && value.$ === 'dict'
      ? { $: 'dict', v: [...value.v].sort((a, b) => (JSON.stringify(a[0]) < JSON.stringify(b[0]) ? -1 : 1)) }
      : value);
}
