// Keeps what the page has loaded, so that it works without a network from then on. A new export is a new version, which
// waits until the tabs of the old one are closed, so that page and models are always of one export.
const CACHE = "facelm-{{version}}";
const PAGE = ["./", "index.html", "page.js", "facelm.js", "pixels.js", "pose.js"];

self.addEventListener("install", (event) => {
  const requests = PAGE.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  const others = (names) => names.filter((name) => name.startsWith("facelm-") && name !== CACHE);
  const cleared = caches.keys().then((names) => Promise.all(others(names).map((name) => caches.delete(name))));
  event.waitUntil(cleared.then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept !== undefined) return kept;
  const fresh = await fetch(request.url, { cache: "no-cache" });
  if (fresh.ok) await cache.put(request.url, fresh.clone());
  return fresh;
}
