-- Events: bodies made on the fly, every answer checked (202 and the exact form of the body).
--   wrk ... -s events.lua URL -- MODE BATCH START COUNT TS_MS REQUESTS_PER_SECOND
-- MODE  members   the memberships of bench/world.py; stops by itself after COUNT events
--       distinct  a new identifier in every event, from number START on
--       repeated  a thousand identifiers again and again, each time with a newer ts and the opposite action
-- REQUESTS_PER_SECOND  0: as fast as the answers come; otherwise that pace over all connections.

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local finish = dofile(here .. "report.lua")
local ffi = require("ffi")
ffi.cdef([[
   typedef struct { long seconds; long nanoseconds; } bench_timespec;
   int clock_gettime(int, bench_timespec *);
   int getpid(void);
   int kill(int, int);
]])

local AUDIENCES, STRIDE, PER_IDENTIFIER, REPEATED = 20, 4, 5, 1000
local CLOCK_MONOTONIC, SIGINT = 1, 2
local ACCEPTED = '^{"title":"Accepted","status":202,"timestamp":"%d+%-%d+%-%d+T%d+:%d+:%d+%.?%d*Z"}$'

local floor, formatted, concat = math.floor, string.format, table.concat
local mode, batch, start, count, ts_ms
local next_event, requests_made, answers = 0, 0, 0
local verified = false
local parts = {}

local function event(n, ts)
   local name, number, audience, disqualify = "live-", n, n % AUDIENCES, n % 10 == 9
   if mode == "members" then
      local step = n % PER_IDENTIFIER
      number = floor(n / PER_IDENTIFIER)
      name, audience, disqualify = "user-", (number + STRIDE * step) % AUDIENCES, step == 0
   elseif mode == "repeated" then
      number, disqualify = n % REPEATED, floor(n / REPEATED) % 2 == 1
   end
   return '{"type":"passthrough","action":"' .. (disqualify and "disqualify" or "qualify") ..
      '","identifiers":{"fs_user_id":"' .. name .. formatted("%011d", number) ..
      '"},"data":{"audience_id":"audience_' .. audience .. '","ts":' .. ts .. "}}"
end

local function body()
   local ms = mode == "members" and ts_ms or ts_ms + requests_made
   local ts = formatted("%d.%03d", floor(ms / 1000), ms % 1000)
   local size = batch
   if count > 0 then size = math.min(batch, count - next_event) end
   for place = 1, size do
      parts[place] = event(start + next_event + place - 1, ts)
   end
   return "[" .. concat(parts, ",", 1, size) .. "]", size
end

local clock = ffi.new("bench_timespec")
local function now_ms()
   ffi.C.clock_gettime(CLOCK_MONOTONIC, clock)
   return tonumber(clock.seconds) * 1e3 + tonumber(clock.nanoseconds) / 1e6
end

-- Requests are due at fixed moments, whatever the answers do; what is late is caught up.
local function keep_pace(per_second)
   local interval_ms, due_ms = 1000 / per_second, nil
   function delay()
      local now = now_ms()
      due_ms = due_ms and due_ms + interval_ms or now
      return math.max(0, floor(due_ms - now))
   end
end

function init(args)
   mode, batch, start, count, ts_ms = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
   if tonumber(args[6]) > 0 then keep_pace(tonumber(args[6])) end
end

function request()
   if count > 0 and next_event >= count then next_event = math.max(0, count - batch) end
   local text, size = body()
   -- wrk asks once for a request that it never sends, to look at it.
   if verified then
      next_event = next_event + size
      requests_made = requests_made + 1
   end
   verified = true
   return wrk.format("POST", nil, nil, text)
end

function response(status, headers, text)
   if status == 202 and text:find(ACCEPTED) then
      accepted = accepted + 1
   elseif status == 503 then
      refused = refused + 1
   else
      note_wrong(status, text, "answer")
   end
   answers = answers + 1
   -- The order of answers is not the order of requests: wait for as many more as may still be under way. Stopping this
   -- thread would leave wrk's main one asleep until the end of the time that it was given; an interrupt wakes it.
   if count > 0 and answers == math.ceil(count / batch) + 64 then ffi.C.kill(ffi.C.getpid(), SIGINT) end
end

function done(summary, latency)
   finish(nil, summary, latency)
end
