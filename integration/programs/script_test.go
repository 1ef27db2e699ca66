package programs

import "strings"

var (
	npmTsx  = []string{"npm:tsx@4"}
	npmHono = []string{"npm:hono@4", "npm:@hono/node-server@1"}
	npmNest = []string{"npm:@nestjs/core@11", "npm:@nestjs/common@11", "npm:@nestjs/platform-express@11", "npm:reflect-metadata@0.2", "npm:rxjs@7"}
	npmNext = []string{"npm:next@15", "npm:react@19", "npm:react-dom@19"}
	npmGRPC = []string{"npm:@grpc/grpc-js@1"}
)

// in is a package in the cache.
func in(name string) string { return "%CACHE%/node_modules/" + name }

const nestApp = `require('reflect-metadata')
const { Module, Controller, All } = require('@nestjs/common')
const { NestFactory } = require('@nestjs/core')
class Any { ok() { return 'ok\n' } }
All()(Any.prototype, 'ok', Object.getOwnPropertyDescriptor(Any.prototype, 'ok'))
Controller()(Any)
class App {}
Module({ controllers: [Any] })(App)
NestFactory.create(App, { logger: false }).then(app => {
  app.enableShutdownHooks()
  return app.listen(Number(process.env.PORT), '127.0.0.1')
})
`

const honoApp = `const { Hono } = require('hono')
const { serve } = require('@hono/node-server')
const app = new Hono()
app.all('/', async c => { await c.req.text(); return c.text('ok\n') })
serve({ fetch: app.fetch, port: Number(process.env.PORT), hostname: '127.0.0.1' })
`

const expressApp = `const app = require('express')()
app.all('/', (req, res) => { req.resume(); req.on('end', () => res.send('ok\n')) })
app.listen(Number(process.env.PORT), '127.0.0.1')
`

const fastifyApp = `const app = require('fastify')()
app.all('/', async () => 'ok\n')
app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' })
`

const grpcNode = `const grpc = require('@grpc/grpc-js')
const raw = { requestSerialize: b => b, requestDeserialize: b => b, responseSerialize: b => b, responseDeserialize: b => b }
const server = new grpc.Server()
server.addService({ Call: { path: '/any.Any/Call', requestStream: false, responseStream: false, ...raw } }, { Call: (call, done) => done(null, Buffer.alloc(0)) })
server.bindAsync('127.0.0.1:' + process.env.PORT, grpc.ServerCredentials.createInsecure(), err => { if (err) throw err })
process.on('SIGTERM', () => server.tryShutdown(() => process.exit()))
`

// bunApp and denoApp end as their manuals have it.
const bunApp = `const server = Bun.serve({ hostname: '127.0.0.1', port: Number(process.env.PORT), fetch: async req => { await req.text(); return new Response('ok\n') } })
process.on('SIGTERM', async () => { await server.stop(); process.exit() })
`

const denoApp = `const server = Deno.serve({ hostname: '127.0.0.1', port: Number(Deno.env.get('PORT')), onListen() {} }, async req => { await req.text(); return new Response('ok\n') })
Deno.addSignalListener('SIGTERM', async () => { await server.shutdown(); Deno.exit() })
`

var nextFiles = map[string]string{
	"next/package.json":     `{"name":"next-any","private":true}`,
	"next/next.config.js":   "module.exports = { output: 'standalone', outputFileTracingRoot: __dirname + '/..' }\n",
	"next/app/layout.js":    "export default function Layout({ children }) { return <html><body>{children}</body></html> }\n",
	"next/app/page.js":      "export default function Page() { return <p>ok</p> }\n",
	"next/app/ok/route.js":  "export const dynamic = 'force-dynamic'\nexport function GET() { return new Response('ok\\n') }\n",
	"nitro/package.json":    `{"name":"nitro-any","private":true}`,
	"nitro/nitro.config.ts": "export default { compatibilityDate: '2025-01-01' }\n",
	"nitro/routes/index.ts": "import { eventHandler } from 'h3'\nexport default eventHandler(() => 'ok\\n')\n",
}

var nitroBuild = []string{"npx", "nitropack", "build", "--dir", "%CACHE%/nitro"}

var javaScriptRows = []row{
	{kind: tcp, name: "npm start", needs: []string{"npm"}, args: []string{"npm", "start", "--silent"}},
	{kind: tcp, name: "npm start, no preload", needs: []string{"npm"}, args: []string{"npm", "start", "--silent"}, flags: []string{"--no-preload"}},
	{kind: tcp, name: "node, no preload", needs: []string{"node"}, args: []string{"node", "server.js"}, flags: []string{"--no-preload"}},
	{kind: tcp, name: "sh -c node", needs: []string{"node"}, args: []string{"sh", "-c", "node server.js"}},
	{kind: tcp, name: "Express", needs: []string{"node", in("express")}, from: []string{"npm:express@5"}, files: map[string]string{"main.js": expressApp}, args: []string{"node", "main.js"}},
	{kind: tcp, name: "Express behind npm", needs: []string{"npm", in("express")}, from: []string{"npm:express@5"},
		files: map[string]string{"server.js": expressApp}, args: []string{"npm", "start", "--silent"}},
	{kind: tcp, name: "Fastify", needs: []string{"node", in("fastify")}, from: []string{"npm:fastify@5"}, files: map[string]string{"main.js": fastifyApp}, args: []string{"node", "main.js"}},
	{kind: tcp, name: "hono", needs: []string{"node", in("hono"), in("@hono/node-server")}, from: npmHono, files: map[string]string{"main.js": honoApp}, args: []string{"node", "main.js"}},
	{kind: tcp, name: "NestJS", needs: []string{"node", in("@nestjs/platform-express"), in("reflect-metadata")}, from: npmNest, files: map[string]string{"main.js": nestApp}, args: []string{"node", "main.js"}},
	{kind: tcp, name: "Next.js, standalone", needs: []string{"node", in("next"), "%CACHE%/next/.next/standalone/next/server.js"}, from: npmNext, build: []string{"sh", "-c", "cd %CACHE%/next && NEXT_TELEMETRY_DISABLED=1 npx next build"},
		files: nextFiles, args: []string{"node", "%CACHE%/next/.next/standalone/next/server.js"}, env: []string{"HOSTNAME=127.0.0.1"}, slow: true, getOnly: true},
	{kind: tcp, name: "Nitro", needs: []string{"node", in("nitropack"), "%CACHE%/nitro/.output/server/index.mjs"}, from: []string{"npm:nitropack@2", "npm:h3@1"}, build: nitroBuild,
		files: nextFiles, args: []string{"node", "%CACHE%/nitro/.output/server/index.mjs"}},
	{kind: tcp, name: "tsx", needs: []string{"tsx"}, from: npmTsx, files: map[string]string{"main.ts": "import http from 'node:http'\nconst port: number = Number(process.env.PORT)\nhttp.createServer((_, res) => res.end('ok\\n')).listen(port, '127.0.0.1')\n"}, args: []string{"tsx", "main.ts"}},
	{kind: tcp, name: "node --import tsx", needs: []string{"node", in("tsx")}, from: npmTsx, files: map[string]string{"main.ts": "import http from 'node:http'\nconst port: number = Number(process.env.PORT)\nhttp.createServer((_, res) => res.end('ok\\n')).listen(port, '127.0.0.1')\n"},
		args: []string{"node", "--import", "file://" + in("tsx/dist/loader.mjs"), "main.ts"}},
	{kind: tcp, name: "Bun", needs: []string{"bun"}, from: []string{"npm:bun@1"}, files: map[string]string{"main.ts": bunApp}, args: []string{"bun", "main.ts"}},
	{kind: tcp, name: "Deno", needs: []string{"deno"}, from: []string{"npm:deno@2"}, files: map[string]string{"main.ts": denoApp}, args: []string{"deno", "run", "--no-check", "-A", "main.ts"}},
	{kind: tcp, name: "Bun, no handler", needs: []string{"bun"}, from: []string{"npm:bun@1"}, files: map[string]string{"main.ts": strings.SplitAfter(bunApp, "\n")[0]}, args: []string{"bun", "main.ts"}},
	{kind: tcp, name: "Deno, no handler", needs: []string{"deno"}, from: []string{"npm:deno@2"}, files: map[string]string{"main.ts": strings.SplitAfter(denoApp, "\n")[0]}, args: []string{"deno", "run", "--no-check", "-A", "main.ts"}},
	{kind: tcp, name: "gRPC, Node", needs: []string{"node", in("@grpc/grpc-js")}, from: npmGRPC, files: map[string]string{"main.js": grpcNode}, args: []string{"node", "main.js"}, asks: grpcUnary},
}
