// Search as you type and refresh when something new was committed. What is typed travels in POST bodies only.
const main = document.getElementById('studies');
const form = document.getElementById('search');
const field = document.getElementById('text');
const TYPING_MS = 180;
const POLL_MS = 2000;
const POLL_MAX_MS = 30000;

document.documentElement.classList.add('scripted');
let running = null;
let typing = 0;
let pause = POLL_MS;

const listing = () => document.getElementById('listing');

async function show(page) {
  running?.abort();
  const mine = (running = new AbortController());
  main.setAttribute('aria-busy', 'true');
  try {
    const body = new URLSearchParams({ text: field.value, page });
    const answer = await fetch('/list', { method: 'POST', body, signal: mine.signal });
    if (!answer.ok) return;
    const focused = document.activeElement?.closest('#listing a, #listing button')?.getAttribute('href');
    main.innerHTML = await answer.text();
    if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  } catch (error) {
    if (error.name !== 'AbortError' && error.name !== 'TypeError') throw error;
  } finally {
    if (running === mine) main.setAttribute('aria-busy', 'false');
  }
}

field.addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(() => show(1), TYPING_MS);
});

form.addEventListener('submit', (event) => {
  event.preventDefault();
  clearTimeout(typing);
  show(1);
});

main.addEventListener('submit', (event) => {
  event.preventDefault();
  show(Number(event.submitter?.value ?? 1));
  window.scrollTo({ top: 0 });
});

async function poll() {
  try {
    if (document.visibilityState === 'visible') {
      const answer = await fetch('/list/version', { headers: { 'If-None-Match': `"${listing().dataset.version}"` } });
      pause = POLL_MS;
      if (answer.status === 200) await show(listing().dataset.page);
    }
  } catch {
    // The server is away: ask less often until it is back.
    pause = Math.min(2 * pause, POLL_MAX_MS);
  }
  setTimeout(poll, pause);
}

document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') pause = POLL_MS;
});
setTimeout(poll, POLL_MS);
