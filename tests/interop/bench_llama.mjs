// Generation with llama.cpp, timed: `node bench_llama.mjs ORDER` in a folder that has the package
// node-llama-cpp. ORDER is a JSON object like that of the program `bench-ours` of the package
// peft-tests: `model` (a GGUF file), `lora` (another, or nothing), `rows`, `tokens`, `new_tokens`,
// `steps`. Prints `prefill`, tokens of prompts read in a second, and `decode`, tokens of all rows in a
// second from then on, for each round.
//
// Its threads wait for each other in loops, and on few cores one may be faster than all: either is
// tried, and the faster counts, by itself for each of the two.

import os from "node:os";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const order = JSON.parse(process.argv[2]);
const {rows, tokens, new_tokens: newTokens, steps} = order;
const cores = os.cpus().length;
const llama = await getLlama({gpu: false, maxThreads: cores, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: order.model});

const prompt = (row) =>
    Array.from({length: tokens}, (_, place) => 1000 + ((row * 131 + place * 17) % 9000));

// The most likely token each time, whether or not it ends the text.
async function generate(sequence, last) {
    let count = 0;
    for await (const _ of sequence.evaluate([last], {temperature: 0, yieldEogToken: true})) {
        count += 1;
        if (count === newTokens) {
            break;
        }
    }
    return count;
}

async function measure(threads) {
    const context = await model.createContext({
        sequences: rows,
        contextSize: tokens + newTokens,
        batchSize: 512,
        threads: {ideal: threads, min: threads},
        batching: {dispatchSchedule: "nextCycle"},
        ...(order.lora ? {lora: {adapters: [{filePath: order.lora}]}} : {}),
    });
    const sequences = Array.from({length: rows}, () => context.getSequence());
    const [prefill, decode] = [[], []];
    // The first round is to warm up.
    for (let round = 0; round <= steps; round += 1) {
        for (const sequence of sequences) {
            await sequence.clearHistory();
        }
        const start = performance.now();
        // All prompts are read before any is continued, as our program does.
        await Promise.all(sequences.map(
            (sequence, row) => sequence.evaluateWithoutGeneratingNewTokens(prompt(row).slice(0, -1)),
        ));
        const read = performance.now();
        const counts = await Promise.all(
            sequences.map((sequence, row) => generate(sequence, prompt(row).at(-1))),
        );
        const seconds = (performance.now() - read) / 1000;
        if (round > 0) {
            prefill.push((rows * (tokens - 1)) / ((read - start) / 1000));
            decode.push(counts.reduce((sum, count) => sum + count, 0) / seconds);
        }
    }
    await context.dispose();
    return {prefill, decode};
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const better = (a, b) => (median(a) > median(b) ? a : b);
const [one, all] = [await measure(1), await measure(cores)];
console.log(JSON.stringify({
    prefill: better(one.prefill, all.prefill),
    decode: better(one.decode, all.decode),
}));
process.exit(0);
