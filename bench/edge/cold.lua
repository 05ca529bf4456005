-- Every request carries another token: one pass over the file, then the load stops.
local tokens, next_one = {}, 0

function init(args)
  for line in io.lines(args[1]) do tokens[#tokens + 1] = "Bearer " .. line end
end

function request()
  next_one = next_one + 1
  if next_one >= #tokens then wrk.thread:stop() end
  return wrk.format("GET", nil, { ["Authorization"] = tokens[math.min(next_one, #tokens)] })
end
