-- wrk script for the load of bench/load.py. One thread per connection, so that every response can be matched to its
-- request: latencies are exact, and it is known which bodies were acknowledged.
--
-- Bodies come from a template, a whole request, in which only digits change: alert ids, keys, times. The contents of a
-- body depend only on its number, so that bench/load.py can reconstruct them.

local ffi = require("ffi")
ffi.cdef [[
    typedef struct { long seconds; long nanoseconds; } bench_time;
    int clock_gettime(int clock, bench_time *time);
]]

local MONOTONIC = 1
local clock = ffi.new("bench_time")

local function now()
    ffi.C.clock_gettime(MONOTONIC, clock)
    return tonumber(clock.seconds) + tonumber(clock.nanoseconds) * 1e-9
end

-- In wrk's main Lua state: the list of threads.
local threads = {}

function setup(thread)
    thread:set("connection", #threads)
    threads[#threads + 1] = thread
end

-- In the state of each thread.
local load, buffers, ends_at, sent_at
local verified = false
sent, acknowledged = 0, 0
began_at, ended_at = 0, 0
waiting = false -- for the answer to the last that was sent
refused = {}    -- "turn:status" of what was answered otherwise than with 2xx; status 0: not at all
latencies = {}  -- microseconds

function init(args)
    load = dofile(args[1])
    buffers = {}
    for _, template in ipairs { load.firing, load.resolved } do
        local text = template.request
        buffers[template] = { bytes = ffi.new("char[?]", #text + 1, text), length = #text }
    end
    -- Defined only if needed: with it, wrk waits for a timer before each request.
    if load.interval > 0 then delay = until_due end
end

-- Milliseconds until the next body of this connection is due. Connections take turns.
function until_due()
    if sent == 0 then return load.interval * connection / load.connections * 1000 end
    return math.max(0, (began_at + sent * load.interval - now()) * 1000)
end

local function put(bytes, at, width, value)
    for place = at + width - 1, at, -1 do
        local rest = math.floor(value / 10)
        bytes[place] = 48 + value - rest * 10
        value = rest
    end
end

local function put_time(bytes, at, milliseconds)
    local seconds = math.floor(milliseconds / 1000)
    local minutes = math.floor(seconds / 60)
    put(bytes, at, 2, math.floor(minutes / 60))
    put(bytes, at + 3, 2, minutes % 60)
    put(bytes, at + 6, 2, seconds % 60)
    put(bytes, at + 9, 3, milliseconds % 1000)
end

-- The contents of body `turn`: its template, the number its alert ids are derived from, and its time. Mirrors
-- `Load.contents` in bench/load.py. Nothing when the load is complete.
local function contents(turn)
    if load.mode == "new" then
        local body = load.first + turn
        if load.known == 0 or body < load.known then return load.firing, body, body end
    elseif load.mode == "resolved" then
        if turn < load.known then return load.resolved, turn, turn + load.known end
    elseif load.mode == "repeats" then
        return load.firing, turn % load.known, turn
    else -- half: a round of all keys fires, the next resolves what an earlier load fired
        local round = math.floor(turn / load.keys)
        if round % 2 == 0 then return load.firing, load.known + turn, load.known + turn end
        local earlier = (round - 1) / 2 * load.keys + turn % load.keys
        if earlier < load.known then return load.resolved, earlier, load.known + turn end
    end
end

local function render(template, body, at)
    local buffer = buffers[template]
    local bytes, alerts = buffer.bytes, load.alerts
    for _, slot in ipairs(template.ids) do
        put(bytes, slot[1], 12, body * alerts + slot[2])
    end
    for _, slot in ipairs(template.keys) do
        local key = load.spread and body * alerts + slot[2] or body
        put(bytes, slot[1], 6, key % load.keys)
    end
    for _, slot in ipairs(template.starts) do
        put_time(bytes, slot[1], load.first_ms + body * alerts + slot[2])
    end
    for _, slot in ipairs(template.ends) do
        put_time(bytes, slot[1], load.first_ms + at * alerts + slot[2])
    end
    return ffi.string(bytes, buffer.length)
end

function request()
    local template, body, at = contents(connection + load.connections * sent)
    if not verified and connection == 0 then
        -- wrk asks the first thread once for a request only to look at it.
        verified = true
        return render(load.firing, 0, 0)
    end
    sent_at = now()
    if sent == 0 then
        began_at = sent_at
        ends_at = sent_at + load.seconds
    end
    if waiting then
        -- The connection broke, and wrk made another.
        refused[#refused + 1] = (sent - 1) .. ":0"
        waiting = false
    end
    if template == nil or sent_at >= ends_at then
        wrk.thread:stop()
        return "" -- nothing is sent
    end
    sent, waiting = sent + 1, true
    local text = render(template, body, at)
    sent_at = now()
    return text
end

function response(status)
    ended_at = now()
    waiting = false
    latencies[#latencies + 1] = math.floor((ended_at - sent_at) * 1e6)
    if status >= 200 and status < 300 then
        acknowledged = acknowledged + 1
    else
        refused[#refused + 1] = (sent - 1) .. ":" .. status
    end
end

function done(summary)
    local errors = summary.errors
    io.write(("ERRORS %d %d %d\n"):format(errors.connect, errors.read, errors.write))
    for index, thread in ipairs(threads) do
        local refusals = thread:get("refused")
        if thread:get("waiting") then refusals[#refusals + 1] = (thread:get("sent") - 1) .. ":0" end
        io.write(("CONNECTION %d %d %d %.6f %.6f;%s;%s\n"):format(
            index - 1, thread:get("sent"), thread:get("acknowledged"), thread:get("began_at"), thread:get("ended_at"),
            table.concat(refusals, ","), table.concat(thread:get("latencies"), ",")))
    end
end
