-- What both load scripts share: counters of a thread, and the one line of JSON at the end of a run.
-- The counters are globals because wrk hands globals of a thread to done() in the main state, and nothing else.

accepted = 0      -- answers that were checked and right
refused = 0       -- 503: the server said that it is overloaded
wrong = 0         -- answers with a status or a body that they must not have
wrong_sample = "" -- the first wrong one, for the message

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function note_wrong(status, body, why)
   wrong = wrong + 1
   if wrong_sample == "" then
      wrong_sample = why .. ": " .. status .. " " .. string.sub(body or "", 1, 400)
   end
end

local function quoted(text)
   local safe = text:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end)
   return '"' .. safe .. '"'
end

-- checks(thread) may find more that is wrong once all is counted: it returns a number and a sample.
local function finish(checks, summary, latency)
   local sum = { accepted = 0, refused = 0, wrong = 0 }
   local sample = ""
   for _, thread in ipairs(threads) do
      for name, value in pairs(sum) do
         sum[name] = value + thread:get(name)
      end
      if sample == "" then sample = thread:get("wrong_sample") end
      if checks then
         local more, why = checks(thread, summary)
         sum.wrong = sum.wrong + more
         if sample == "" then sample = why end
      end
   end
   local errors = summary.errors
   io.write(string.format(
      '\nOUTCOME {"accepted":%d,"refused":%d,"wrong":%d,"wrong_sample":%s,"seconds":%.6f,' ..
      '"p50_us":%.0f,"p90_us":%.0f,"p99_us":%.0f,"p999_us":%.0f,"max_us":%.0f,' ..
      '"errors_connect":%d,"errors_read":%d,"errors_write":%d,"errors_timeout":%d}\n',
      sum.accepted, sum.refused, sum.wrong, quoted(sample), summary.duration / 1e6,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max,
      errors.connect, errors.read, errors.write, errors.timeout))
end

return finish
