run ->(env) { env["rack.input"]&.read; [200, { "content-type" => "text/plain" }, ["ok\n"]] }
