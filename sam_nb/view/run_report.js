// The report: the page of run_browser.js without a kernel, with the data that its file holds. `save_report` puts all of it into one function.

const data = JSON.parse(document.getElementById("data").textContent);
render({el: document.getElementById("runs"), model: {get: name => data[name], set() {}, save_changes() {}, send() {}, on() {}, off() {}}});
