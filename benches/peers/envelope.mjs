// A signed `job_list` as an agent that signs by itself has to write it.

import { createHash, randomUUID } from 'node:crypto'

const ENVELOPE = ['wallet_address', 'session_nonce', 'request_id', 'signature']

/** The body that goes out. */
export async function signed(body, nonce, signer) {
  const sent = Object.entries(body)
    .filter(([name, value]) => !ENVELOPE.includes(name) && value !== null)
  const { limit = 50, skip = 0 } = Object.fromEntries(sent)
  const requestId = randomUUID()
  const signature = await signer.sign(message(signer.address, nonce, requestId, { limit, skip }))
  const envelope = {
    wallet_address: signer.address, session_nonce: nonce, request_id: requestId, signature,
  }
  return canonical({ ...Object.fromEntries(sent), limit, skip, ...envelope })
}

export function message(wallet, nonce, requestId, payload) {
  const digest = createHash('sha256').update(canonical(payload)).digest('hex')
  return ['agentpmt-external', `wallet:${wallet}`, `session:${nonce}`, `request:${requestId}`,
    'action:job_list', 'product:-', `payload:${digest}`].join('\n')
}

/** For what is written in ASCII. */
export function canonical(value) {
  return JSON.stringify(value, (_, part) => isObject(part) ? sorted(part) : part)
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

function sorted(object) {
  return Object.fromEntries(Object.keys(object).sort().map(name => [name, object[name]]))
}

export async function viem() {
  const { privateKeyToAccount } = await import('viem/accounts')
  const account = privateKeyToAccount(`0x${process.env.KEY}`)
  const sign = text => account.signMessage({ message: text })
  return { address: account.address.toLowerCase(), sign }
}

export async function ethers() {
  const { Wallet } = await import('ethers')
  const wallet = new Wallet(`0x${process.env.KEY}`)
  return { address: wallet.address.toLowerCase(), sign: text => wallet.signMessage(text) }
}
