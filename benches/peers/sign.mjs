// What one signature costs in JavaScript, in µs of CPU time: `sign.mjs LIBRARY SECONDS`.

import * as envelope from './envelope.mjs'

const [library, seconds] = process.argv.slice(2)
const signer = await envelope[library]()

function text(number) {
  return envelope.message(signer.address, '0123456789abcdef'.repeat(2), String(number), {})
}

async function signFor(seconds) {
  const end = performance.now() + seconds * 1000
  let signatures = 0
  while (performance.now() < end) await signer.sign(text(signatures++))
  return signatures
}

// The compiler needs some time to make it fast.
await signFor(seconds / 2)
const begun = process.cpuUsage()
const signatures = await signFor(seconds)
const { user, system } = process.cpuUsage(begun)
console.log((user + system) / signatures)
