/** Two steps start without `await`, run wherever there is a free slot, and are awaited together. */
import { Stepwire } from "stepwire";
import { runOnce } from "./run_once.js";

interface Events {
  "stripe/charge.created": { userId: string; amount: number };
  "email/receipt.sent": { userId: string };
}

const app = new Stepwire<Events>({ id: "signup-flow" });

async function updateUser(userId: string): Promise<{ userId: string; paid: boolean }> {
  await Promise.resolve(); // write to the database
  return { userId, paid: true };
}

async function sendReceipt(userId: string, amount: number): Promise<string> {
  await Promise.resolve(); // call the provider of e-mail
  return `receipt of ${String(amount)} to ${userId}`;
}

app.createFunction(
  { id: "post-payment-flow", retries: 3 },
  { event: "stripe/charge.created" },
  async ({ event, step }) => {
    const { userId, amount } = event.data;
    const updated = step.run("update-user", () => updateUser(userId));
    const receipt = step.run("send-receipt", () => sendReceipt(userId, amount));
    const [user, sent] = await Promise.all([updated, receipt]);

    await step.sendEvent("tell-others", { name: "email/receipt.sent", data: { userId } });
    return { user, sent };
  },
);

await runOnce(app, { name: "stripe/charge.created", data: { userId: "u-1", amount: 25 } });
