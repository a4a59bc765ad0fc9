// Shows what each rank does, as the endpoint's events say it.
"use strict";
const body = document.getElementById("ranks");
if (body.dataset.events) {
  const source = new EventSource(body.dataset.events);
  source.onmessage = (event) => {
    const state = JSON.parse(event.data);
    body.replaceChildren(...state.ranks.map((rank) => {
      const row = document.createElement("tr");
      const cells = [
        rank.rank, rank.calls, Math.round(rank.call_rate), (rank.byte_rate / 1e6).toFixed(2),
        `${Math.round(rank.memory / 1e6)} MB`, `${rank.seconds.toFixed(1)} s`, rank.state, rank.where,
      ];
      cells.forEach((text, at) => {
        const cell = document.createElement("td");
        if (at < 6) { cell.className = "n"; }
        cell.textContent = text;
        row.append(cell);
      });
      return row;
    }));
    if (state.ended) {
      source.close();
      location.reload();
    }
  };
}
