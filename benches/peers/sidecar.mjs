// A signing sidecar as one would write it in JavaScript: fastify in front, undici behind.
// `sidecar.mjs PORT`

import fastify from 'fastify'
import { Pool } from 'undici'

import { canonical, signed, viem } from './envelope.mjs'

const API = '/api/external'
const headers = { 'content-type': 'application/json' }

const upstream = new Pool(process.env.UPSTREAM, { connections: 1024 })
const signer = await viem()

function post(path, body) {
  return upstream.request({ method: 'POST', path: API + path, headers, body })
}

const began = await post('/auth/session', canonical({ wallet_address: signer.address }))
const nonce = (await began.body.json()).session_nonce

const app = fastify()

app.post(`${API}/jobs/list`, async (request, reply) => {
  const answer = await post('/jobs/list', await signed(request.body, nonce, signer))
  reply.code(answer.statusCode).header('content-type', answer.headers['content-type'])
  return reply.send(Buffer.from(await answer.body.arrayBuffer()))
})

await app.listen({ host: '127.0.0.1', port: Number(process.argv[2]) })
