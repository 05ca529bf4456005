// A real, certified OpenID provider (npm `oidc-provider`) on loopback, for tests. `node oidc-provider.mjs PORT` (0 = any free
// port) prints `ready ISSUER`. Clients `support`, `finance` and `nobody` (secret: `secret`) get ES256 access tokens (RFC 9068)
// by client_credentials; `resource` becomes `aud`; each token carries the groups below.
// One command per line of standard input, one line of answer:
//   rotate        a new key signs, the old one stays published
//   rotate-drop   a new key signs, the old one is gone
//   kid           the kid that signs now
//   stats         {"jwks": …, "discovery": …, "token": …} requests answered so far
//   quit          ends the process; so does the end of standard input
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";

const GROUPS = { support: ["support"], finance: ["finance"], nobody: [] };
const KINDS = { "/jwks": "jwks", "/.well-known/openid-configuration": "discovery", "/token": "token" };
console.info = console.error; // the provider gives advice there; standard output is for answers
const counts = { jwks: 0, discovery: 0, token: 0 };
let keys = [];
let handle;
let issuer;

async function rotate(kept) {
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const kid = `key-${crypto.randomUUID()}`;
  keys = [{ ...(await exportJWK(privateKey)), kid, alg: "ES256", use: "sig" }, ...kept];
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: Object.keys(GROUPS).map((client_id) => ({
      client_id, client_secret: "secret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: "ES256",
    })),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:orders",
        getResourceServerInfo: (_ctx, audience) => ({
          scope: "orders.read", audience, accessTokenTTL: 300, accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
    ttl: { ClientCredentials: 300 },
    extraTokenClaims: (ctx) => ({ groups: GROUPS[ctx.oidc.client.clientId] }),
  });
  handle = provider.callback();
  return kid;
}

const server = createServer((request, response) => {
  const kind = KINDS[request.url.split("?")[0]];
  if (kind) counts[kind] += 1;
  handle(request, response);
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", async () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  await rotate([]);
  console.log(`ready ${issuer}`);
  for await (const command of createInterface({ input: process.stdin })) {
    if (command === "rotate") console.log(await rotate(keys));
    else if (command === "rotate-drop") console.log(await rotate([]));
    else if (command === "kid") console.log(keys[0].kid);
    else if (command === "stats") console.log(JSON.stringify(counts));
    else if (command === "quit") break;
    else console.log(`unknown command ${command}`);
  }
  process.exit(0);
});
