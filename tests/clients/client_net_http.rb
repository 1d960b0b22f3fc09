# Net::HTTP: one GET and one POST at URL; prints everything that came back, fields included.

require "net/http"

url = URI(ARGV[0])
Net::HTTP.start(url.host, url.port, use_ssl: true) do |http|
  [http.get("/echo/fields"), http.post("/echo/body", "x" * 4096)].each do |answer|
    puts answer.code, answer.to_hash, answer.body
    answer.value
  end
end
