-- Queries: prepared request bodies in random order, every answer checked.
--   wrk ... -s queries.lua URL -- WORK_FILE CONNECTIONS SEED
-- WORK_FILE, one entry a line, parts separated by tabs:
--   A <class> <exact body of the right answer>     Q <class> <request body>
-- wrk does not say which request an answer belongs to. With one connection it is the last one, and the answer must be
-- the one of its class. With more, every body must be one of the known ones, and per class there must not be more
-- answers than questions; bench/answers.py checks request by request before every run.

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local finish = dofile(here .. "report.lua")

local requests, classes = {}, {}
local class_of_body = {}
local alone = false
local pending
sent, received = {}, {}

local function read(path)
   for line in io.lines(path) do
      local kind, class, body = line:match("^(%u)\t(%d+)\t(.*)$")
      class = tonumber(class)
      if kind == "A" then
         class_of_body[body] = class
         sent[class], received[class] = 0, 0
      else
         requests[#requests + 1] = wrk.format("POST", nil, nil, body)
         classes[#classes + 1] = class
      end
   end
end

function init(args)
   read(args[1])
   alone = tonumber(args[2]) == 1
   math.randomseed(tonumber(args[3]))
end

function request()
   local index = math.random(#requests)
   pending = classes[index]
   sent[pending] = sent[pending] + 1
   return requests[index]
end

function response(status, headers, body)
   local class = class_of_body[body]
   if status ~= 200 then
      if status == 503 then refused = refused + 1 else note_wrong(status, body, "status") end
   elseif not class then
      note_wrong(status, body, "unknown body")
   elseif alone and class ~= pending then
      note_wrong(status, body, "body of another request")
   else
      received[class] = received[class] + 1
      accepted = accepted + 1
   end
end

function done(summary, latency)
   finish(function(thread)
      local asked, answered = thread:get("sent"), thread:get("received")
      local more = 0
      for class, count in pairs(answered) do
         more = more + math.max(0, count - asked[class])
      end
      return more, more > 0 and "more answers of a class than questions: 200 " or ""
   end, summary, latency)
end
