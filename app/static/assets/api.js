// The public API. Knows paths, the key, problems and retries; nothing of what is shown.

const KEY = "beexformer-key";
const MAX_TRIES = 6; // of a request that is answered with 503 and Retry-After

/** A request that got no answer: `status` is 0 where nothing answered at all. */
export class ApiError extends Error {
  constructor(message, status, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Send, and wait as long as the service asks for; `onWait(error, seconds)` hears of each wait. -> {body, timing} */
export async function ask(path, { body, signal, onWait = () => {} } = {}) {
  for (let tries = 1; ; tries++) {
    try {
      return await once(path, body, signal);
    } catch (error) {
      if (!(error.status === 503 && error.retryAfter) || tries === MAX_TRIES) throw error;
      const seconds = Math.min(error.retryAfter, 30);
      onWait(error, seconds);
      await pause(seconds * 1000, signal);
    }
  }
}

/** After so many milliseconds, unless aborted before. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(signal.reason);
      },
      { once: true },
    );
  });
}

async function once(path, body, signal) {
  const headers = { accept: "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers["x-api-key"] = key;
  if (body) headers["content-type"] = "application/json";
  let response, text;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The service does not answer. It may have stopped, or the network is down.", 0);
  }
  let found = null;
  try {
    found = JSON.parse(text);
  } catch {
    // a proxy's own page, perhaps
  }
  if (!response.ok || found === null) {
    const detail =
      found?.detail ?? `the answer was ${response.status} ${response.statusText}, and not from the service`;
    throw new ApiError(detail, response.status, Number(response.headers.get("retry-after")) || 0);
  }
  return { body: found, timing: timing(response.headers.get("server-timing") ?? "") };
}

/** "tokenize;dur=0.1, compute;dur=0.4" -> {tokenize: 0.1, compute: 0.4} */
function timing(header) {
  return Object.fromEntries([...header.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, dur]) => [name, Number(dur)]));
}
