# A journal adapter of Elixir's on the bridge: `continuum-conformance check --exec "elixir bridge.exs"`.
#
# A skeleton to start from: the protocol, the terms and the mapping of callbacks, errors, atoms and tuples are whole,
# and the journal behind them is a small one in memory. To check a journal of yours, replace `Memory` by it.
#
# How Elixir's behaviour `Continuum.Runtime.Journal` maps:
#
#   start_run/4, load/2, get_run/2 ...   requests of the same name
#   append!/4, suspend!/3, complete!/4   `append`, `suspend`, `complete`: the bang is how they fail, by raising
#   :ok                                  null
#   {:error, reason}, a raised error     {"kind": "error", "error": NAME}; see `Journal.Error`
#   nil, true, false                     null, true, false
#   other atoms                          there are none among durable terms. An atom that an engine of yours journals
#                                        must become text before, or it will not come back as it was
#   tuples                               {"$": "tuple"}, a rich term; refused here, for `rich_terms` is not declared
#   binaries                             text and bytes are both binaries in Elixir, so bytes travel as {:bytes, data}
#   floats                               nan and infinities are none in Erlang, so they travel as {:float, "nan"}
#   maps                                 lose the order of their keys; a dict travels as {:dict, pairs}
#
# It needs Elixir 1.14 and nothing else: JSON is at the end (with OTP 27 or Jason, take theirs).

defmodule Journal.Error do
  # The contract's error, by name, with what NotDurable and JournalUnavailable bear.
  defexception [:name, :message, path: nil, unknown: false]
end

defmodule Terms do
  # Between the bridge's JSON, as `JSON.read` gives it, and terms of Elixir's.
  #   int and float, text, list, nil and bools are themselves; {:dict, pairs}; {:bytes, data}; {:float, "nan"};
  #   {:instance, name}; {:lease, run_id, owner, token}; {:snapshot, ...}; {:datetime, ...}; {:unsupported, tag}

  def decode({:object, pairs}) do
    case List.keyfind(pairs, "$", 0) do
      nil -> {:dict, Enum.map(pairs, fn {key, value} -> {key, decode(value)} end)}
      {"$", tag} -> pairs |> List.keyfind!("v", 0) |> elem(1) |> tagged(tag)
    end
  end

  def decode(list) when is_list(list), do: Enum.map(list, &decode/1)
  def decode(plain), do: plain

  defp tagged(value, "int"), do: String.to_integer(value, 16)
  defp tagged(value, "float") when value in ["nan", "inf", "-inf"], do: {:float, value}
  # Python writes 1e+16, and Elixir asks for a point.
  defp tagged(value, "float"), do: value |> Float.parse() |> elem(0)
  defp tagged(value, "bytes"), do: {:bytes, Base.decode64!(value)}
  defp tagged(pairs, "dict"), do: {:dict, Enum.map(pairs, fn [key, value] -> {decode(key), decode(value)} end)}
  defp tagged([char, times], "repeat"), do: String.duplicate(decode(char), times)
  defp tagged([byte, times], "repeat-bytes"), do: {:bytes, :binary.copy(<<byte>>, times)}
  defp tagged([depth, inner], "nest"), do: Enum.reduce(1..depth//1, decode(inner), fn _, term -> [term] end)
  defp tagged([name], "Instance"), do: {:instance, decode(name)}
  defp tagged([run_id, owner, token], "Lease"), do: {:lease, decode(run_id), decode(owner), decode(token)}
  defp tagged([text, offset], "datetime"), do: {:datetime, text, offset}
  defp tagged(parts, "Snapshot"), do: List.to_tuple([:snapshot | Enum.map(parts, &decode/1)])
  defp tagged(_, tag), do: {:unsupported, tag}

  def encode({:dict, pairs}), do: tag("dict", Enum.map(pairs, fn {key, value} -> [encode(key), encode(value)] end))
  def encode({:bytes, data}), do: tag("bytes", Base.encode64(data))
  def encode({:float, text}), do: tag("float", text)
  def encode({:datetime, text, offset}), do: tag("datetime", [text, offset])
  def encode({:lease, run_id, owner, token}), do: tag("Lease", [run_id, owner, encode(token)])
  def encode({:run, run_id, workflow, state, input, result, error}),
    do: tag("Run", [run_id, workflow, state | Enum.map([input, result, error], &encode/1)])
  def encode({:snapshot, run_id, seq, hash, taken_at, steps}),
    do: tag("Snapshot", [run_id | Enum.map([seq, hash, taken_at, steps], &encode/1)])
  def encode({:pair, one, other}), do: [encode(one), encode(other)]
  def encode(list) when is_list(list), do: Enum.map(list, &encode/1)
  def encode(float) when is_float(float), do: tag("float", Float.to_string(float))
  def encode(int) when is_integer(int) and abs(int) >= 9_007_199_254_740_992,
    do: tag("int", int |> Integer.to_string(16) |> String.downcase())
  def encode(plain), do: plain

  defp tag(name, value), do: {:object, [{"$", name}, {"v", value}]}
end

defmodule Check do
  # Arguments, as the contract wants them refused.
  def refuse(name, message, more \\ []), do: raise(struct(Journal.Error, [name: name, message: message] ++ more))
  defp invalid(message), do: refuse("InvalidArgument", message)

  def name!(name, what) do
    unless is_binary(name) and name != "" and length(String.to_charlist(name)) <= 255 and not String.contains?(name, <<0>>),
      do: invalid("#{what} is no name")
  end

  def key!({:instance, name}, run_id) do
    name!(name, "the instance")
    name!(run_id, "the run id")
  end

  def token!(token), do: unless(is_nil(token) or is_integer(token), do: invalid("the token is no integer"))

  # Booleans are atoms here, so they are no numbers; nan and infinities are {:float, text}.
  def ttl!(ttl), do: if(is_number(ttl) and ttl >= 0, do: ttl, else: invalid("the ttl is no number of seconds"))

  def lease!({:lease, run_id, owner, token}) do
    name!(run_id, "the run id")
    name!(owner, "the owner")
    unless is_integer(token), do: invalid("the token is no integer")
  end

  def lease!(_), do: invalid("the lease is none")

  def event!({:dict, pairs}) do
    unless Enum.all?(pairs, fn {key, _} -> is_binary(key) end), do: invalid("a key of the event is no text")
    type = get(pairs, "type")
    unless is_binary(type) and type != "", do: invalid("the event has no type")
    seq = get(pairs, "seq")
    unless is_nil(seq) or is_integer(seq), do: invalid("the seq is no integer")
    for {key, value} <- pairs, key not in ["type", "seq"], do: durable!(value, "event.#{key}", 1)
    seq
  end

  def event!(_), do: invalid("the event is no mapping")

  def snapshot!({:snapshot, run_id, seq, {:bytes, _}, {:datetime, _, offset}, {:dict, steps}})
      when is_integer(seq) and offset != nil do
    name!(run_id, "the run id")

    for {at, step} <- steps do
      unless is_integer(at), do: invalid("a step has a seq that is no integer")
      durable!(step, "snapshot.steps_by_seq[#{at}]", 1)
    end
  end

  def snapshot!(_), do: invalid("the snapshot is none")

  def durable!(term, path, depth \\ 0)
  def durable!(_, path, depth) when depth > 500, do: not_durable(path, "nested too deep")
  def durable!({:unsupported, kind}, path, _), do: not_durable(path, kind)
  def durable!({:datetime, _, _}, path, _), do: not_durable(path, "datetime")
  def durable!({tag, _}, _, _) when tag in [:bytes, :float], do: :ok

  def durable!({:dict, pairs}, path, depth) do
    for {key, value} <- pairs do
      unless is_binary(key), do: not_durable(path, "a key that is no text")
      durable!(value, "#{path}.#{key}", depth + 1)
    end
  end

  def durable!(list, path, depth) when is_list(list) do
    for {item, index} <- Enum.with_index(list), do: durable!(item, "#{path}[#{index}]", depth + 1)
  end

  def durable!(_, _, _), do: :ok

  defp not_durable(path, kind), do: refuse("NotDurable", "#{path} cannot be stored (#{kind})", path: path)
  defp get(pairs, key), do: pairs |> List.keyfind(key, 0, {key, nil}) |> elem(1)
end

defmodule Memory do
  # The journal: one process holds the runs, and carries out one operation after another.
  use GenServer
  import Check

  def start_link, do: GenServer.start_link(__MODULE__, %{}, name: __MODULE__)

  # An operation raises in its caller's process, never in the store's.
  def call(op, args) do
    case GenServer.call(__MODULE__, {op, args}, :infinity) do
      {:ok, value} -> value
      {:raised, error, trace} -> reraise(error, trace)
    end
  end

  @impl true
  def init(runs), do: {:ok, runs}

  @impl true
  def handle_call({op, args}, _from, runs) do
    {value, changed} = apply(__MODULE__, op, [runs | args])
    {:reply, {:ok, value}, changed}
  rescue
    error -> {:reply, {:raised, error, __STACKTRACE__}, runs}
  end

  # -- the operations: each gives its value and the runs as they are afterwards --

  def start_run(runs, instance, run_id, workflow, input) do
    key!(instance, run_id)
    name!(workflow, "the workflow")
    durable!(input, "input")
    key = {instance, run_id}
    if Map.has_key?(runs, key), do: refuse("RunAlreadyExists", "the run exists already")

    run = %{
      workflow: workflow, state: "running", input: input, result: nil, error: nil,
      events: [], count: 0, snapshots: %{}, lease: nil, last_token: 0
    }

    {nil, Map.put(runs, key, run)}
  end

  def get_run(runs, instance, run_id) do
    key!(instance, run_id)

    case runs[{instance, run_id}] do
      nil -> {nil, runs}
      run -> {{:run, run_id, run.workflow, run.state, run.input, run.result, run.error}, runs}
    end
  end

  def append(runs, instance, run_id, event, token) do
    key!(instance, run_id)
    token!(token)
    seq = event!(event)
    run = active!(runs, instance, run_id)
    fence!(run, token)
    if seq not in [nil, run.count], do: refuse("SequenceConflict", "#{seq} was given, #{run.count} is next")
    {:dict, pairs} = event
    stored = {:dict, List.keystore(pairs, "seq", 0, {"seq", run.count})}
    {nil, Map.put(runs, {instance, run_id}, %{run | events: [stored | run.events], count: run.count + 1})}
  end

  def load(runs, instance, run_id) do
    key!(instance, run_id)
    {runs |> Map.get({instance, run_id}, %{events: []}) |> Map.get(:events) |> Enum.reverse(), runs}
  end

  def load_with_snapshot(runs, instance, run_id, token) do
    key!(instance, run_id)
    token!(token)
    run = known!(runs, instance, run_id)
    fence!(run, token)
    latest = run.snapshots |> Map.keys() |> Enum.max(fn -> -1 end)
    {{:pair, run.snapshots[latest], run.events |> Enum.reverse() |> Enum.drop(latest + 1)}, runs}
  end

  def take_snapshot(runs, instance, snapshot) do
    snapshot!(snapshot)
    {:snapshot, run_id, seq, hash, _, steps} = snapshot
    key!(instance, run_id)
    run = known!(runs, instance, run_id)
    if seq < 0 or seq >= run.count, do: refuse("SnapshotConflict", "#{seq} is no seq of the history")

    case run.snapshots[seq] do
      nil ->
        {nil, Map.put(runs, {instance, run_id}, %{run | snapshots: Map.put(run.snapshots, seq, snapshot)})}

      {:snapshot, _, _, first_hash, _, first_steps} ->
        same = first_hash == hash and meaning(first_steps) === meaning(steps)
        unless same, do: refuse("SnapshotConflict", "there is another snapshot for #{seq}")
        {nil, runs}
    end
  end

  def suspend(runs, instance, run_id, token), do: move(runs, instance, run_id, token, %{state: "suspended"})

  def complete(runs, instance, run_id, result, token) do
    key!(instance, run_id)
    durable!(result, "result")
    move(runs, instance, run_id, token, %{state: "completed", result: result, lease: nil})
  end

  def fail(runs, instance, run_id, error, token) do
    key!(instance, run_id)
    durable!(error, "error")
    move(runs, instance, run_id, token, %{state: "failed", error: error, lease: nil})
  end

  def acquire(runs, instance, run_id, owner, ttl) do
    key!(instance, run_id)
    name!(owner, "the owner")
    ttl!(ttl)
    run = active!(runs, instance, run_id)
    if run.lease != nil and run.lease.expires > now(), do: refuse("LeaseHeld", "#{run.lease.owner} holds the run")
    token = run.last_token + 1
    lease = %{owner: owner, token: token, expires: expiry(ttl)}
    {{:lease, run_id, owner, token}, Map.put(runs, {instance, run_id}, %{run | lease: lease, last_token: token})}
  end

  def renew(runs, instance, lease, ttl) do
    lease!(lease)
    ttl!(ttl)
    {key, run} = held!(runs, instance, lease)
    {nil, Map.put(runs, key, put_in(run.lease.expires, expiry(ttl)))}
  end

  def release(runs, instance, lease) do
    lease!(lease)
    {key, run} = held!(runs, instance, lease)
    {nil, Map.put(runs, key, %{run | lease: nil})}
  end

  # -- what they have in common --

  defp move(runs, instance, run_id, token, changes) do
    key!(instance, run_id)
    token!(token)
    run = active!(runs, instance, run_id)
    fence!(run, token)
    {nil, Map.put(runs, {instance, run_id}, Map.merge(run, changes))}
  end

  defp known!(runs, instance, run_id) do
    runs[{instance, run_id}] || refuse("RunNotFound", "there is no run #{run_id}")
  end

  defp active!(runs, instance, run_id) do
    run = known!(runs, instance, run_id)
    if run.state in ["completed", "failed"], do: refuse("RunNotActive", "the run is #{run.state}")
    run
  end

  # An expired lease that nobody took still counts (FEN-3).
  defp fence!(run, token) do
    if (run.lease && run.lease.token) != token, do: refuse("LeaseMismatch", "the token is not the run's")
  end

  defp held!(runs, instance, {:lease, run_id, owner, token}) do
    key!(instance, run_id)
    run = active!(runs, instance, run_id)
    unless match?(%{owner: ^owner, token: ^token}, run.lease), do: refuse("LeaseLost", "the lease is another one")
    {{instance, run_id}, run}
  end

  # Dicts are equal whatever the order of their keys; 1 and 1.0 are not equal (===).
  defp meaning({:dict, pairs}), do: {:dict, Map.new(pairs, fn {key, value} -> {key, meaning(value)} end)}
  defp meaning(list) when is_list(list), do: Enum.map(list, &meaning/1)
  defp meaning(plain), do: plain

  defp now, do: System.monotonic_time(:millisecond)
  # A ttl of 0 is over at once. (Integers sort before atoms, so :never would be greater than any time.)
  defp expiry(ttl), do: if(ttl > 0, do: now() + ceil(ttl * 1000), else: now() - 1)
end

defmodule Bridge do
  # Requests in, replies out. Each handle has a process of its own, so that requests to different handles go side by side.
  @operations %{
    "start_run" => {:start_run, ~w(instance run_id workflow input)},
    "append" => {:append, ~w(instance run_id event lease_token)},
    "load" => {:load, ~w(instance run_id)},
    "load_with_snapshot" => {:load_with_snapshot, ~w(instance run_id lease_token)},
    "take_snapshot" => {:take_snapshot, ~w(instance snapshot)},
    "suspend" => {:suspend, ~w(instance run_id lease_token)},
    "complete" => {:complete, ~w(instance run_id result lease_token)},
    "fail" => {:fail, ~w(instance run_id error lease_token)},
    "get_run" => {:get_run, ~w(instance run_id)},
    "acquire" => {:acquire, ~w(instance run_id owner ttl)},
    "renew" => {:renew, ~w(instance lease ttl)},
    "release" => {:release, ~w(instance lease)}
  }

  def main do
    {:ok, _} = Memory.start_link()
    # Lines as bytes: the device must not convert what is UTF-8 already.
    :io.setopts(:standard_io, encoding: :latin1, binary: true)
    loop(%{})
  end

  defp loop(handles) do
    case IO.binread(:stdio, :line) do
      line when is_binary(line) -> line |> JSON.read() |> take(handles) |> loop()
      _ -> System.halt(0)
    end
  end

  defp take(request, handles) do
    id = get(request, "id")

    case get(request, "op") do
      "hello" ->
        value(id, hello())
        handles

      "open" ->
        # A journal over PostgreSQL connects here, by `dsn`: get(get(request, "args"), "dsn").
        handle = map_size(handles) + 1
        value(id, handle)
        Map.put(handles, handle, spawn_link(&serve/0))

      "close" ->
        # The handles' numbers are never used twice, so the map only grows.
        send(handles[get(request, "handle")], :close)
        value(id, nil)
        handles

      "bye" ->
        value(id, nil)
        System.halt(0)

      _ ->
        send(handles[get(request, "handle")], request)
        handles
    end
  end

  defp serve do
    receive do
      :close -> :ok
      request ->
        answer(request)
        serve()
    end
  end

  defp answer(request) do
    id = get(request, "id")
    op = get(request, "op")

    case @operations[op] do
      nil -> error(id, "error", %{name: "NotImplementedError", message: "there is no #{op}"})
      {callback, names} ->
        args = Enum.map(names, fn name -> request |> get("args") |> get(name) |> Terms.decode() end)
        value(id, callback |> Memory.call(args) |> Terms.encode())
    end
  rescue
    error in Journal.Error -> error(get(request, "id"), "error", error)
    other -> error(get(request, "id"), "raw", %{name: inspect(other.__struct__), message: Exception.message(other)},
      Exception.format_stacktrace(__STACKTRACE__))
  end

  defp hello do
    {:object, [
      {"protocol", 1}, {"name", "Memory"}, {"language", "Elixir #{System.version()}"}, {"contract", "0.4"},
      {"capabilities", ["leases", "snapshots", "opaque_run_ids"]}, {"needs", []}, {"tables", []}
    ]}
  end

  defp value(id, value), do: reply([{"id", id}, {"kind", "value"}, {"value", value}])

  defp error(id, kind, error, detail \\ nil) do
    reply([
      {"id", id}, {"kind", kind}, {"error", error.name}, {"message", error.message},
      {"path", Map.get(error, :path)}, {"unknown", Map.get(error, :unknown, false)}, {"detail", detail}
    ])
  end

  # One write a line: lines of two processes never mix.
  defp reply(pairs), do: IO.binwrite(:stdio, [JSON.write({:object, pairs}), ?\n])

  defp get({:object, pairs}, key), do: pairs |> List.keyfind(key, 0, {key, nil}) |> elem(1)
end

defmodule JSON do
  # JSON with the order of keys: an object is {:object, [{key, value}]}.
  def read(text) do
    {value, _} = text |> skip() |> value()
    value
  end

  defp value("{" <> rest), do: object(skip(rest), [])
  defp value("[" <> rest), do: array(skip(rest), [])
  defp value("\"" <> rest), do: string(rest, [])
  defp value("null" <> rest), do: {nil, rest}
  defp value("true" <> rest), do: {true, rest}
  defp value("false" <> rest), do: {false, rest}
  defp value(text), do: Integer.parse(text)

  defp object("}" <> rest, pairs), do: {{:object, Enum.reverse(pairs)}, rest}
  defp object("," <> rest, pairs), do: object(skip(rest), pairs)

  defp object("\"" <> rest, pairs) do
    {key, rest} = string(rest, [])
    ":" <> rest = skip(rest)
    {value, rest} = rest |> skip() |> value()
    object(skip(rest), [{key, value} | pairs])
  end

  defp array("]" <> rest, items), do: {Enum.reverse(items), rest}
  defp array("," <> rest, items), do: array(skip(rest), items)

  defp array(text, items) do
    {item, rest} = value(text)
    array(skip(rest), [item | items])
  end

  defp string("\"" <> rest, parts), do: {parts |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp string("\\u" <> <<high::binary-size(4), rest::binary>>, parts) do
    case String.to_integer(high, 16) do
      high when high in 0xD800..0xDBFF ->
        "\\u" <> <<low::binary-size(4), rest::binary>> = rest
        low = String.to_integer(low, 16)
        string(rest, [<<0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00::utf8>> | parts])

      char ->
        string(rest, [<<char::utf8>> | parts])
    end
  end

  defp string(<<?\\, char, rest::binary>>, parts) do
    string(rest, [Map.get(%{?b => "\b", ?f => "\f", ?n => "\n", ?r => "\r", ?t => "\t"}, char, <<char>>) | parts])
  end

  defp string(<<char, rest::binary>>, parts), do: string(rest, [char | parts])

  defp skip(<<space, rest::binary>>) when space in ' \t\r\n', do: skip(rest)
  defp skip(text), do: text

  def write({:object, pairs}), do: [?{, pairs |> Enum.map(fn {k, v} -> [text(k), ?:, write(v)] end) |> Enum.intersperse(?,), ?}]
  def write(list) when is_list(list), do: [?[, list |> Enum.map(&write/1) |> Enum.intersperse(?,), ?]]
  def write(nil), do: "null"
  def write(bool) when is_boolean(bool), do: to_string(bool)
  def write(int) when is_integer(int), do: Integer.to_string(int)
  def write(binary) when is_binary(binary), do: text(binary)

  defp text(binary), do: [?", for(<<char <- binary>>, do: escape(char)), ?"]

  defp escape(?"), do: "\\\""
  defp escape(?\\), do: "\\\\"
  defp escape(char) when char < 0x20, do: ["\\u00", if(char < 16, do: "0", else: "1"), Integer.to_string(rem(char, 16), 16)]
  defp escape(char), do: char
end

Bridge.main()
